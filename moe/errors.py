"""This room's errors, by exit code (data/errors.py)."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from data.errors import FailedError, InputError, StoppedError


class ConfigError(InputError):
    """A wrong experiment, model or run directory; the message says how to mend it."""


class TrainingStoppedError(StoppedError):
    """Training was stopped by a signal after its checkpoint was written; resume it."""

    @classmethod
    def after(cls, step: int) -> Self:
        """Return how a run ended whose newest checkpoint is that of `step`."""
        return cls(
            f"stopped by a signal after step {step}; the checkpoint is written: continue with"
            " --resume"
        )


class StorageError(FailedError):
    """The disk refused what a run must keep; everything complete is still there."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into a StorageError that names the remedy."""
    try:
        yield
    except OSError as error:
        in_the_way = error.errno in {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY}
        remedy = "move away what stands there" if in_the_way else "make room or repair it"
        raise StorageError(
            f"{error.filename or path}: {error.strerror or error}: {remedy}, then start again"
        ) from None


class ExecutionError(FailedError):
    """The built model is not what was asked for."""


class GuardError(FailedError):
    """A step's loss or gradient was refused; the run ended with a dump of the step."""


class RankError(FailedError):
    """A rank of this run failed or was killed; the run can be resumed."""
