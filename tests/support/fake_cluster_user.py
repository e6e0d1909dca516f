"""A user to submit from: experiments, a fake cluster, and what was submitted."""

from pathlib import Path

from slurm.cluster.client import Client
from slurm.cluster.submit import Receipt, submit
from slurm.job.cluster_profile import ProfilesFile
from slurm.job.code_snapshot import CodeSnapshot
from slurm.job.plan import JobPlan, SubmissionPaths, plan_training
from tests.support.fake_commands import FakeCommands

EXPERIMENT = """
name = "{name}"
model.preset = "tiny"
train = {{steps = {steps}, seq_len = 64, global_batch_size = 8}}
"""
SNAPSHOT = CodeSnapshot(path=Path("/code"), tree="0123456789ab", commit="c0ffee", dirty=True)


class FakeClusterUser:
    """A folder with experiments, a fake cluster, and what was submitted from here."""

    def __init__(self, folder: Path, fake: FakeCommands) -> None:
        self.folder, self.fake = folder, fake
        self.client = Client(pauses_s=(), sleep=lambda _: None)
        self.profiles = ProfilesFile()
        self.environment: dict[str, str] = {}

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def write(self, name: str, *, steps: int = 4, more: str = "") -> Path:
        """Write an experiment file."""
        path = self.folder / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(EXPERIMENT.format(name=Path(name).name, steps=steps) + more)
        return path

    def paths(self, name: str | None = None) -> SubmissionPaths:
        return SubmissionPaths(
            runs_dir=self.runs, work_dir=self.folder, code_tree=SNAPSHOT.tree, name=name
        )

    def plan(self, *paths: Path, sets: tuple[str, ...] = (), name: str | None = None) -> JobPlan:
        return plan_training(paths, sets, self.profiles, self.paths(name))

    def submit(self, plan: JobPlan) -> Receipt:
        return submit(plan, SNAPSHOT, self.client, self.environment)

    def finish(self, plan: JobPlan, *indices: int) -> None:
        """Write the records of finished runs."""
        for index in indices:
            run_dir = Path(plan.tasks[index].run_dir or "")
            run_dir.mkdir(parents=True)
            (run_dir / "record.json").write_text('{"status": "finished"}')
