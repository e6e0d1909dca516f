"""From experiments or a command to a job: decided completely before the cluster is asked."""

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dotted_keys import apply_override
from data.errors import InputError
from moe.config.experiment import Experiment, load_experiment, validated
from moe.config.power_csv import check_power_csv
from moe.config.slurm import SlurmConfig
from moe.config.toml_file import read_toml
from slurm.errors import JobError
from slurm.job.cluster_profile import ClusterProfile, ProfilesFile, apply_profile
from slurm.job.job import Job, common_config, possible_node_counts
from slurm.job.memory_check import memory_warnings
from slurm.job.mounts import folders_of, names_of
from slurm.job.task import SUBMISSIONS, Task


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """A job, and the files that its submission writes beside it."""

    job: Job
    tasks: tuple[Task, ...]
    experiments: dict[str, str]
    """Texts of the experiments, by file name."""
    content_hash: str
    warnings: tuple[str, ...] = ()
    """What its user should know before it waits in a queue."""


@dataclass(frozen=True, kw_only=True)
class SubmissionPaths:
    """Folders of a submission, and what names it."""

    runs_dir: Path
    """Folder of all runs, absolute, on the shared file system."""
    work_dir: Path
    """Working folder of the ranks, absolute: relative paths of experiments start here."""
    code_tree: str
    """Hash of the code snapshot."""
    name: str | None = None
    """Job name; none: the experiment's, the folder's or the command's."""

    @property
    def submissions(self) -> Path:
        """Folder of submissions."""
        return self.runs_dir / SUBMISSIONS

    @property
    def code_dir(self) -> Path:
        """The code snapshot."""
        return self.submissions / "code" / self.code_tree


def plan_training(
    sources: Sequence[Path],
    overrides: Sequence[str],
    profiles: ProfilesFile,
    paths: SubmissionPaths,
) -> JobPlan:
    """Plan runs of experiment files; several files, or a folder, make one array.

    Raises:
        JobError: They cannot run like this; the message names file and key.
        ConfigError: The same of a file of power samples.
    """
    files = experiment_files(sources)
    experiments = _load_all(files, overrides)
    for one in experiments:
        if one.energy.power_csv is not None:
            check_power_csv(paths.work_dir / one.energy.power_csv)
    names = [f"{one.name}-{one.content_hash}" for one in experiments]
    _refuse_duplicates(files, names)
    is_array = len(files) > 1 or any(path.is_dir() for path in sources)
    sections = [(str(file), one.slurm) for file, one in zip(files, experiments, strict=True)]
    config, profile = apply_profile(common_config(sections), profiles)
    is_contained = profile.container.runtime != "none"
    texts = {f"{name}.toml": one.to_toml() for name, one in zip(names, experiments, strict=True)}
    default_name = files[0].parent.resolve().name if is_array else experiments[0].name
    name = paths.name or default_name
    identity = [paths.code_tree, config.model_dump(), profile.model_dump(), sorted(texts.items())]
    content_hash = _hash([name, is_array, str(paths.work_dir), *identity])
    job_dir = paths.submissions / f"{_slug(name)}-{content_hash}"
    tasks = tuple(
        _training_task(index, run, job_dir, paths.runs_dir, one.train.steps)
        for index, (run, one) in enumerate(zip(names, experiments, strict=True))
    )
    job = _job(
        paths,
        tasks,
        name=name,
        job_dir=job_dir,
        config=config,
        profile=profile,
        is_array=is_array,
        node_counts=possible_node_counts(config, experiments),
        mounts=_input_folders(experiments, paths.work_dir) if is_contained else (),
    )
    return JobPlan(
        job=job,
        tasks=tasks,
        experiments=texts,
        content_hash=content_hash,
        warnings=tuple(memory_warnings(experiments, config)),
    )


def plan_command(
    command: Sequence[str],
    num_tasks: int | None,
    slurm_values: SlurmConfig,
    profiles: ProfilesFile,
    paths: SubmissionPaths,
) -> JobPlan:
    """Plan any `moe` command, for example a shard of a data build or a benchmark.

    Args:
        command: Arguments of `moe`; `{task}` becomes 1 to N, `{tasks}` N.
        num_tasks: N of an array; none: one job.
        slurm_values: The `[slurm]` section.
        profiles: The user's cluster profiles.
        paths: Folders and the job's name.

    Raises:
        JobError: The keys contradict each other.
    """
    config, profile = apply_profile(slurm_values, profiles)
    name = paths.name or "-".join(word for word in command[:2] if re.fullmatch(r"[\w.-]+", word))
    commands = tuple(
        tuple(_numbered(word, number + 1, num_tasks or 1) for word in command)
        for number in range(num_tasks or 1)
    )
    identity = [paths.code_tree, config.model_dump(), profile.model_dump(), commands]
    content_hash = _hash([name, num_tasks, str(paths.work_dir), *identity])
    tasks = tuple(
        Task(index=index, name=f"{name}-{index + 1}" if num_tasks else name, command=words)
        for index, words in enumerate(commands)
    )
    job = _job(
        paths,
        tasks,
        name=name,
        job_dir=paths.submissions / f"{_slug(name)}-{content_hash}",
        config=config,
        profile=profile,
        is_array=num_tasks is not None,
        node_counts=(config.nodes,),
    )
    return JobPlan(job=job, tasks=tasks, experiments={}, content_hash=content_hash)


def slurm_section(file: Path | None, overrides: Sequence[str]) -> SlurmConfig:
    """Read the `[slurm]` table of any TOML file, with `slurm.key=value` overrides.

    Raises:
        ConfigError: The file or a key is wrong.
    """
    values: dict[str, Any] = {} if file is None else {"slurm": read_toml(file).get("slurm", {})}
    for override in overrides:
        if not override.lstrip().startswith("slurm."):
            raise JobError(f"--set {override!r}: a command's job has only slurm.* keys")
        apply_override(values, override)
    return validated(SlurmConfig, values.get("slurm", {}), str(file or "--set"), ("slurm",))


def experiment_files(paths: Sequence[Path]) -> list[Path]:
    """Return the experiment files; a folder stands for its visible `*.toml`, sorted by name.

    Raises:
        JobError: A folder has none.
    """
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("[!.]*.toml")) if path.is_dir() else [path]
        if not inside:
            raise JobError(f"{path}: no *.toml experiments in this folder")
        files += inside
    return files


def _job(
    paths: SubmissionPaths,
    tasks: Sequence[Task],
    *,
    profile: ClusterProfile,
    **values: Any,
) -> Job:
    """Make the job of `tasks`: what every job takes from the paths and the profile is filled in."""
    return Job(
        runs_dir=paths.runs_dir,
        code_dir=paths.code_dir,
        work_dir=paths.work_dir,
        python=sys.executable,
        commands=tuple(task.command for task in tasks),
        profile=profile,
        has_secrets=bool(profile.secrets),
        **values,
    )


def _training_task(index: int, run: str, job_dir: Path, runs_dir: Path, steps: int) -> Task:
    experiment, run_dir = str(job_dir / "experiments" / f"{run}.toml"), str(runs_dir / run)
    command = ("train", experiment, "--run-dir", run_dir, "--resume")
    return Task(
        index=index, name=run, command=command, run_dir=run_dir, experiment=experiment, steps=steps
    )


def _load_all(files: Sequence[Path], overrides: Sequence[str]) -> list[Experiment]:
    """Read experiments.

    Raises:
        JobError: Several are wrong; names each.
        ConfigError: One is.
    """
    experiments, errors = [], []
    for file in files:
        try:
            experiments.append(load_experiment(file, overrides))
        except InputError as error:
            errors.append(error)
    if len(errors) > 1:
        said = dict.fromkeys(str(error) for error in errors)  # --set is wrong for all alike
        raise JobError(f"{len(errors)} of {len(files)} experiments are wrong: {'; '.join(said)}")
    if errors:
        raise errors[0]
    return experiments


def _refuse_duplicates(files: Sequence[Path], names: Sequence[str]) -> None:
    seen: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        if name in seen:
            raise JobError(f"{file}: the same experiment as {seen[name]}: submit one of them")
        seen[name] = file


def _input_folders(experiments: Sequence[Experiment], work_dir: Path) -> tuple[str, ...]:
    inputs = {
        work_dir / path
        for one in experiments
        for path in (one.data.store, *one.data.more_stores, one.train.init)
        if path
    }
    # A log may be replaced or its folder's name be a link: its folder is mounted, under each name.
    logs = {
        str(name.parent)
        for one in experiments
        if one.energy.power_csv is not None
        for name in names_of(work_dir / one.energy.power_csv)
    }
    return tuple(sorted({*folders_of(sorted(inputs)), *logs}))


def _numbered(word: str, number: int, count: int) -> str:
    return word.replace("{task}", str(number)).replace("{tasks}", str(count))


def _slug(name: str) -> str:
    """Return a name that is safe in paths and log patterns."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "job"


def _hash(content: object) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
