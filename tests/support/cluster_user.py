"""What a user does and sees: `moe slurm` commands, and the runs they give."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.real_cluster import WAIT_S, Cluster

SECRET = "s3cr3t-" + os.urandom(8).hex()
PROFILES = """
default = "here"
profiles.here.secrets = ["MY_KEY"]
"""
TRAIN = {
    "steps": 40,
    "seq_len": 32,
    "global_batch_size": 4,
    "learning_rate": 3e-3,
    "checkpoint_interval": 10,
    "eval_sequences": 4,
}


QUESTION_PAUSE_S = 0.5
"""Between two questions to SLURM: each starts a command, and gives its controller work."""


class ClusterUser:
    """A folder with experiments and a token store, and the commands run in it."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.profiles = folder / "slurm.toml"
        self.env = {
            **cluster.env,
            "PYTHONPATH": str(ROOT),
            "MOESCALE_SLURM_FILE": str(self.profiles),
            "MY_KEY": SECRET,
        }
        self.profiles.write_text(PROFILES)
        documents = [
            {"text": f"Document {i}: {' '.join(str(i * j) for j in range(99))}"} for i in range(60)
        ]
        (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, documents)))
        self.moe("data", "build", "docs.jsonl", "-o", "store", "--tokenizer", "bytes",
                 "--held-out", "0.2")  # fmt: skip

    def moe(self, *words: str, code: int = 0) -> str:
        """Run a `moe` command; returns stdout, or stderr where it is to fail with `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "moescale", *words],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stderr if code else done.stdout

    def moe_json(self, *words: str) -> Any:
        """Run a `moe` command with `--json` and return its document."""
        command, separator, rest = _split(words)
        return json.loads(self.moe(*command, "--json", *separator, *rest))

    def write(self, name: str, *, seed: int = 0, ep: int = 1, **slurm: Any) -> Path:
        """Write an experiment; equal but for their names they train the same."""
        values = {
            "name": Path(name).name,
            "model": {"preset": "tiny"},
            "data": {"store": str(self.folder / "store")},
            "train": {**TRAIN, "seed": seed},
            "parallel": {"ep": ep},
            "slurm": {"cpus_per_process": 1, "checkpoint_lead_s": 10, **slurm},
        }
        import tomli_w

        path = self.folder / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(tomli_w.dumps(values))
        return path

    def submit(self, *experiments: Path) -> "list[Run]":
        """Submit experiments; returns their runs."""
        receipt = self.moe_json("slurm", "submit", *map(str, experiments))
        is_array = len(experiments) > 1
        return [
            Run(self, Path(receipt["submission"]), receipt["job"], index if is_array else None)
            for index in range(len(receipt["tasks"]))
        ]

    def submit_one(self, name: str) -> "Run":
        """Submit a run of one rank."""
        (run,) = self.submit(self.write(name))
        return run

    def submit_two_nodes(self, name: str, **slurm: Any) -> "Run":
        """Submit the run that all disturbances are compared on: EP2, one rank on each node."""
        (run,) = self.submit(self.write(name, ep=2, nodes=2, **slurm))
        return run


class Run:
    """One submitted run, watched from outside."""

    def __init__(self, user: ClusterUser, submission: Path, job: str, task: int | None) -> None:
        self.user, self.submission, self.task = user, submission, task
        self.job = job if task is None else f"{job}_{task}"
        described = json.loads((submission / "job.json").read_text())
        self.run_dir = Path(described["tasks"][task or 0]["run_dir"] or "")

    # --- what is done to it

    def freeze(self, step: int = 12) -> None:
        """Stop the ranks' clocks once they are past a step, so that what follows finds them.

        It keeps tests independent of the machine's speed: the run neither ends before it is
        disturbed nor has to be a long one.
        """
        self.wait_until(lambda: any(row["step"] >= step for row in self.rows()), pause_s=0.01)
        for pid in self.ranks():
            os.kill(pid, signal.SIGSTOP)
        assert self.rows()[-1]["step"] < TRAIN["steps"], "frozen too late"

    def freeze_between_checkpoints(self) -> None:
        """Freeze where some steps are in no checkpoint."""
        self.freeze()
        while self.rows()[-1]["step"] % TRAIN["checkpoint_interval"] == 0:
            self.thaw()
            self.freeze(self.rows()[-1]["step"] + 1)

    def thaw(self) -> None:
        """Let them go on."""
        for pid in self.ranks():
            os.kill(pid, signal.SIGCONT)

    def disturb(self, how: Callable[[], object], step: int = 12) -> None:
        """Freeze at a step, disturb, thaw once this start has heard of it, and wait for its end."""
        self.freeze(step)
        number = len(self.attempts())
        how()
        self.wait_until(lambda: self._was_told(number), pause_s=QUESTION_PAUSE_S)
        self.thaw()
        self.wait_until(lambda: len(self.attempts()) > number)

    def _was_told(self, number: int) -> bool:
        """Tell whether batch shell or ranks have been asked to stop."""
        told = any(
            f"attempt {number}: SIG" in line and "asking the ranks" in line
            for line in self.log().splitlines()
        )
        return told or self.shown("PreemptTime") not in {"", "None"}

    # --- what can be seen

    def wait(self) -> None:
        """Wait until the run is whole and its job has left its nodes."""
        self.wait_until(lambda: self.record().get("status") == "finished")
        self.wait_until(lambda: self.outcomes()[-1] is not None)
        self.wait_for_end("COMPLETED")

    def wait_for_end(self, state: str) -> None:
        """Wait until the job has ended in a state, or the queue has forgotten it."""
        self.wait_until(lambda: self.state() in {"", state}, pause_s=QUESTION_PAUSE_S)

    def wait_until(self, condition: Callable[[], bool], pause_s: float = 0.05) -> None:
        """Poll a condition."""
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, self.story()
            time.sleep(pause_s)

    def state(self) -> str:
        """Return the queue's word for the job; empty once it is forgotten."""
        argv = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={self.job}"]
        done = subprocess.run(
            argv, env=self.user.cluster.env, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    def shown(self, field: str) -> str:
        """Return one field of `scontrol show job`."""
        text = self.user.cluster.run("scontrol", "show", "job", "-o", self.job)
        return text.partition(f" {field}=")[2].partition(" ")[0]

    def record(self) -> dict[str, Any]:
        """Return the run's record."""
        path = self.run_dir / "record.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def rows(self) -> list[dict[str, Any]]:
        """Return its metrics rows."""
        path = self.run_dir / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def attempts(self) -> list[dict[str, Any]]:
        """Return what the batch shell noted of every start."""
        notes = []
        begins = self._task_dir.glob("attempt-*/begin")
        for begin in sorted(begins, key=lambda path: int(path.parent.name.rpartition("-")[2])):
            end = begin.with_name("end")
            last = json.loads(end.read_text()) if end.exists() else {"outcome": None}
            notes.append(json.loads(begin.read_text()) | last)
        return notes

    def outcomes(self) -> list[str | None]:
        """Return how each start ended."""
        return [attempt["outcome"] for attempt in self.attempts()]

    def log(self) -> str:
        """Return the batch shell's log."""
        path = self.submission / "logs" / f"{self.job}.log"
        return path.read_text() if path.exists() else ""

    def story(self) -> str:
        """Return all that helps to see why a run did not get on."""
        logs = [path.read_text()[-2000:] for path in self._task_dir.glob("attempt-*/rank-*.log")]
        controller = (self.user.cluster.folder / "slurmctld.log").read_text()[-4000:]
        return "\n".join([self.state(), self.log(), *logs, controller])

    @property
    def _task_dir(self) -> Path:
        return self.submission / "tasks" / str(self.task or 0)

    def ranks(self) -> list[int]:
        """Return the process ids of the newest attempt's ranks."""
        attempt = self._task_dir / f"attempt-{len(self.attempts())}"
        found = []
        for mark in attempt.glob("pid-*"):
            shell = mark.read_text().strip()
            children = Path(f"/proc/{shell}/task/{shell}/children")
            if children.exists():
                found += [int(pid) for pid in children.read_text().split()]
        return found


def _split(words: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """Part a command at its `--`."""
    before = list(words[: words.index("--")]) if "--" in words else list(words)
    return before, list(words[len(before) : len(before) + 1]), list(words[len(before) + 1 :])
