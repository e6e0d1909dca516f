"""The files of a submission's folder as values; nothing that is damaged or foreign goes through."""

import stat
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slurm.errors import JobError
from slurm.job.task import Task

MAX_BYTES = 256 * 2**20
"""More than the description of a million tasks takes."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Model = TypeVar("Model", bound=BaseModel)


class _Stored(BaseModel):
    """What a file holds; keys of later versions are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _StoredTask(_Stored):
    index: Count
    name: str
    command: tuple[str, ...]
    run_dir: str | None = None
    experiment: str | None = None
    steps: Count | None = None


class JobFile(_Stored):
    """`job.json`."""

    model_config = ConfigDict(extra="allow")

    format: Literal[1] = 1
    name: str
    array: bool
    tasks: tuple[_StoredTask, ...]
    slurm: dict[str, Any] = {}
    """`[slurm]`, the profile filled in."""
    profile: dict[str, Any] = {}

    def all_tasks(self) -> tuple[Task, ...]:
        """Return the tasks.

        Raises:
            JobError: They are not numbered from 0 on.
        """
        if [task.index for task in self.tasks] != list(range(len(self.tasks))):
            raise JobError("tasks: indices are not 0, 1, 2, ...")
        return tuple(Task(**dict(task)) for task in self.tasks)


class JobLine(_Stored):
    """One line of `jobs`: a job, and which tasks it has."""

    job: str
    tasks: Annotated[str, Field(pattern=r"^\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*$")]
    cluster: str | None = None


class BeginFile(_Stored):
    """`begin` of an attempt."""

    job: str
    restart: Count
    nodes: str
    began: Count


class EndFile(_Stored):
    """`end` of an attempt."""

    outcome: str | None = None
    ended: Count | None = None


def read_file(path: Path, model: type[Model]) -> Model:
    """Read a JSON file.

    Raises:
        JobError: It is damaged, or not such a file; says why.
        OSError: It cannot be read.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise JobError(f"{path.name}: not a regular file")
    if about.st_size > MAX_BYTES:
        raise JobError(f"{path.name}: {about.st_size} bytes are too many for it")
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise JobError(f"{path.name}: {where + ': ' if where else ''}{first['msg']}") from None


def read_if_whole(path: Path, model: type[Model]) -> Model | None:
    """Read a JSON file; none where it is missing, or a full disk left it torn or empty."""
    try:
        return read_file(path, model)
    except (JobError, OSError):
        return None
