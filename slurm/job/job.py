"""One job as values: what to run, where, and what the cluster must give. No effects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe.config.experiment import Experiment
from moe.config.slurm import SlurmConfig
from moe.cost.model_shape import batch_of, shape_of
from parallel.layout.validation import layout_faults
from parallel.precision.fp8_support import fp8_faults
from slurm.errors import JobError
from slurm.job.cluster_profile import ClusterProfile


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything the batch script depends on; equal jobs give equal scripts."""

    name: str
    """Name in the queue; anything without control characters."""
    job_dir: Path
    """Folder of this submission on the shared file system, absolute."""
    runs_dir: Path
    """Folder of all runs, absolute; `job_dir` lies in it."""
    code_dir: Path
    """Snapshot of the code that ranks import, absolute."""
    work_dir: Path
    """Working folder of the ranks, absolute."""
    python: str
    """Interpreter of the ranks, where the profile's environment is `current`."""
    config: SlurmConfig
    """`[slurm]`, the profile filled in."""
    profile: ClusterProfile = ClusterProfile()
    commands: tuple[tuple[str, ...], ...]
    """Arguments of `moe`, one tuple for each task."""
    is_array: bool = False
    """Whether the tasks form an array; otherwise there is one."""
    node_counts: tuple[int, ...]
    """Numbers of nodes that the layout can use, ascending."""
    has_secrets: bool = False
    """Whether ranks read `job_dir/secrets`."""
    mounts: tuple[str, ...] = ()
    """More folders that ranks must see, for example the token store's."""

    def __post_init__(self) -> None:
        """Check the fields against each other.

        Raises:
            JobError: Keys contradict each other.
        """
        if any(ord(char) < 32 or ord(char) == 127 for char in self.name):
            raise JobError(f"job name {self.name!r}: control characters cannot stand in a script")
        for used in (self.runs_dir, self.code_dir, self.work_dir):
            _check_folder(str(used))
        _check_folder(str(self.job_dir), holds_logs=True)
        if self.is_array and any("\n" in word for command in self.commands for word in command):
            raise JobError("an array's commands are lines of a file: no argument may hold two")
        if self.config.gpu_type and not self.config.gpus_per_node:
            raise JobError(f'slurm.gpu_type = "{self.config.gpu_type}" needs slurm.gpus_per_node')
        if self.profile.container.runtime != "none":
            for folder in self.mounted_folders:
                if "," in folder or ":" in folder:
                    raise JobError(f"{folder}: commas and colons cannot be mounted in a container")

    @property
    def mounted_folders(self) -> tuple[str, ...]:
        """Folders that a container must mount, each once."""
        mine = (str(self.runs_dir), str(self.code_dir), str(self.work_dir), *self.mounts)
        roots: list[str] = []
        for folder in sorted(set(mine), key=lambda name: (name.count("/"), name)):
            if not any(Path(folder).is_relative_to(other) for other in roots):
                roots.append(folder)
        return tuple(roots)

    @property
    def tasks_per_node(self) -> int:
        """SLURM tasks on one node: one a rank, or one torchrun."""
        return 1 if self.config.launch == "torchrun" else self.config.num_processes_per_node

    @property
    def cpus_per_task(self) -> int | None:
        """CPU cores of one SLURM task; none: the cluster's default."""
        cpus = self.config.num_cpus_per_process
        if cpus is None or self.config.launch == "srun":
            return cpus
        return cpus * self.config.num_processes_per_node


def _check_folder(folder: str, *, holds_logs: bool = False) -> None:
    what = None
    if "\\" in folder and holds_logs:  # which SLURM takes out of the log's path
        what = "a backslash"
    if any(ord(char) < 32 or ord(char) == 127 for char in folder):
        what = "a control character"
    if any("\ud800" <= char <= "\udfff" for char in folder):
        what = "bytes that are no UTF-8"
    if what:
        raise JobError(
            f"{folder!r}: SLURM cannot start a job in a folder with {what} in its name: rename it,"
            " or choose another --runs-dir"
        )


def possible_node_counts(config: SlurmConfig, experiments: Iterable[Experiment]) -> tuple[int, ...]:
    """Return the numbers of nodes on which every experiment's layout fits, ascending.

    Raises:
        JobError: The full number of nodes does not fit, or CPUs and GPUs are mixed up.
    """
    counts = set(range(config.min_nodes or config.nodes, config.nodes + 1))
    wrong = []
    for experiment in experiments:
        faults = {count: _fault(experiment, config, count) for count in sorted(counts)}
        if fault := faults.get(config.nodes):
            wrong.append(f"{experiment.name}: {fault}")
        else:
            counts = {count for count, fault in faults.items() if fault is None}
    if wrong:
        raise JobError("; ".join(wrong))
    return tuple(sorted(counts))


def _fault(experiment: Experiment, config: SlurmConfig, nodes: int) -> str | None:
    per_node, layout = config.num_processes_per_node, experiment.parallel
    if layout.device == "cuda" and not config.gpus_per_node:
        return 'parallel.device = "cuda" needs slurm.gpus_per_node'
    if layout.device != "cpu" and 0 < config.gpus_per_node < per_node:
        return (
            f"slurm.processes_per_node={per_node} exceeds slurm.gpus_per_node="
            f"{config.gpus_per_node}: a rank needs a GPU of its own"
        )
    ranks = nodes * per_node
    shape, batch = shape_of(experiment.model), batch_of(experiment.train)
    faults = layout_faults(layout, shape, batch, ranks)
    faults += fp8_faults(experiment.precision, layout, shape, batch)
    if not faults:
        return None
    return f"slurm.nodes={nodes} * {per_node} ranks on each = {ranks} ranks: {faults[0]}"


def common_config(configs: Sequence[tuple[str, SlurmConfig]]) -> SlurmConfig:
    """Return the one `[slurm]` section that all experiments of an array share.

    Raises:
        JobError: Two differ; names the first key.
    """
    first_name, first = configs[0]
    for name, config in configs[1:]:
        for key in SlurmConfig.model_fields:
            mine, other = getattr(first, key), getattr(config, key)
            if mine != other:
                raise JobError(
                    f"one array has one [slurm]: slurm.{key} is {mine!r} in {first_name} but"
                    f" {other!r} in {name}: submit them apart, or --set slurm.{key}=..."
                )
    return first
