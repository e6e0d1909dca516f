"""Runs a rendered batch script as slurmd would, and disturbs it as slurmctld would.

The script, its `srun` step and the ranks are real processes; srun, scontrol and sbatch are
stand-ins (fakes/cluster_commands.py), and training is fakes/toy_train.py.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moe.config.slurm import SlurmConfig
from slurm.job.batch_script import render, render_commands
from slurm.job.cluster_profile import ClusterProfile
from slurm.job.job import Job

STAND_INS = Path(__file__).with_name("fakes")
STEPS = 30
NODES = ("n1", "n2")
JOB_NAME = "a UserId=0 JobState=FAKED b"


class Simulator:
    """One job on two nodes of two ranks each, from submission to its last attempt."""

    def __init__(
        self,
        folder: Path,
        *,
        array_task: int | None = None,
        experiment: str = "",
        profile: ClusterProfile = ClusterProfile(),  # noqa: B008 - frozen
        node_counts: tuple[int, ...] = (2,),
        has_secrets: bool = False,
        **slurm: Any,
    ) -> None:
        self.folder, self.array_task = folder, array_task
        self.job_dir, self.run_dir = folder / "job dir's", folder / "run $x"
        self.state_file = folder / "fake" / "state.json"
        self.restart = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._write_commands(folder / "bin")
        (folder / "experiment.toml").write_text(experiment)
        command = (
            "train",
            str(folder / "experiment.toml"),
            "--run-dir",
            str(self.run_dir),
            "--resume",
        )
        tasks = 1 if array_task is None else array_task + 1
        job = Job(
            name="simulated",
            job_dir=self.job_dir,
            runs_dir=folder,
            code_dir=folder,
            work_dir=folder,
            python=str(folder / "bin" / "python"),
            config=SlurmConfig(nodes=2, processes_per_node=2, **slurm),
            profile=profile,
            commands=(("not", "me"),) * (tasks - 1) + (command,),
            is_array=array_task is not None,
            node_counts=node_counts,
            has_secrets=has_secrets,
        )
        for name in ("fake", "job dir's/logs"):
            (folder / name).mkdir(parents=True)
        (self.job_dir / "job.sh").write_text(render(job))
        (self.job_dir / "commands").write_text(render_commands(job))
        port = self._listener.getsockname()[1]
        nodes = {name: {"state": "ALLOCATED", "port": port} for name in NODES}
        self.set_state(
            JobState="RUNNING", Reason="None", Restarts=0, EndTime="Unknown", PreemptTime="None",
            nodes=nodes, requeue_failures=0, silence=0, excluded="", version="22.05.8",
        )  # fmt: skip

    # --- what slurmctld does

    def start(
        self, nodes: Sequence[str] = NODES, job_id: int = 100, hold_at: int | None = None
    ) -> None:
        """Start the batch script on its first node; `hold_at`: see it wait at this step."""
        self.set_state(JobState="RUNNING", Reason="None", PreemptTime="None")
        env = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        env |= {
            "PATH": f"{self.folder / 'bin'}:{env['PATH']}",
            "FAKE_SLURM_DIR": str(self.folder / "fake"),
            "SLURM_JOB_ID": str(job_id),
            "SLURM_JOB_NAME": JOB_NAME,
            "SLURM_JOB_NODELIST": "n[1-2]" if tuple(nodes) == NODES else ",".join(nodes),
            "SLURM_JOB_NUM_NODES": str(len(nodes)),
        }
        if self.restart:
            env["SLURM_RESTART_COUNT"] = str(self.restart)
        if self.array_task is not None:
            env |= {"SLURM_ARRAY_JOB_ID": "90", "SLURM_ARRAY_TASK_ID": str(self.array_task)}
        if hold_at is not None:
            env["TOY_HOLD_AT"] = str(hold_at)
        with (self.job_dir / "logs" / "batch.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", str(self.job_dir / "job.sh")],
                cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        if hold_at:
            self.wait_until(lambda: any(row["step"] == hold_at for row in self.rows()))

    def wait(self, timeout_s: float = 300) -> int:
        """Wait for the batch shell's end, and end what it left, as slurmd does."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        self.kill_all()
        return code

    def restarted(self, hold_at: int | None = None) -> bool:
        """Follow the queue: start again if the job was requeued; tell whether it was."""
        restarts = self.state()["Restarts"]
        if restarts == self.restart:
            return False
        assert restarts == self.restart + 1, "requeued twice"
        self.restart = restarts
        self.start(hold_at=hold_at)
        return True

    def run_to_end(self) -> int:
        """Wait, and start again as often as the job is requeued; returns the last exit code."""
        while True:
            code = self.wait()
            if not self.restarted():
                return code

    def take_back(self) -> None:
        """Requeue the job on SLURM's own account: preemption without grace, or `scontrol`."""
        self.set_state(JobState="COMPLETING", Restarts=self.state()["Restarts"] + 1)

    def signal_batch(self, number: signal.Signals) -> None:
        """Signal the batch shell alone, as `--signal=B:` does."""
        assert self.process is not None
        self.process.send_signal(number)

    def signal_ranks(self, number: signal.Signals) -> None:
        """Signal every process of the step, as preemption with a grace time does."""
        self._signal(number, lambda env: b"SLURM_PROCID=" in env)

    def signal_all(self, number: signal.Signals) -> None:
        """Signal step and batch shell, as the end of every allocation does."""
        self._signal(number, lambda env: True)

    def kill_all(self) -> None:
        """Leave nothing alive."""
        self.signal_all(signal.SIGKILL)

    def fail_node(self, name: str, *, seen: bool) -> None:
        """Break a node; `seen`: slurmctld has noticed it."""
        nodes = self.state()["nodes"]
        with socket.create_server(("127.0.0.1", 0)) as unused:
            nodes[name]["port"] = unused.getsockname()[1]
        if seen:
            nodes[name]["state"] = "DOWN*"
        self.set_state(nodes=nodes)

    # --- what can be seen

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Poll a condition."""
        end = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < end, self.log()
            time.sleep(0.01)

    def rows(self) -> list[dict[str, Any]]:
        """Return the run's metrics rows."""
        path = self.run_dir / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines if line]

    def record(self) -> dict[str, Any]:
        """Return the run's record."""
        record: dict[str, Any] = json.loads((self.run_dir / "record.json").read_text())
        return record

    def state(self) -> dict[str, Any]:
        """Return what the stand-in slurmctld knows."""
        state: dict[str, Any] = json.loads(self.state_file.read_text())
        return state

    def set_state(self, **values: Any) -> None:
        """Change what it knows."""
        with self.state_file.with_name("lock").open("w") as lock:  # scontrol changes it too
            fcntl.flock(lock, fcntl.LOCK_EX)
            old = self.state() if self.state_file.exists() else {}
            temporary = self.state_file.with_suffix(".part")
            temporary.write_text(json.dumps(old | values))
            temporary.replace(self.state_file)

    def calls(self, program: str, verb: str = "") -> list[list[str]]:
        """Return the calls of one command."""
        file = self.folder / "fake" / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if call[0] == program and (not verb or call[1] == verb)]

    def outcomes(self) -> list[str | None]:
        """Return how each attempt ended."""
        folders = (self.job_dir / "tasks" / str(self.array_task or 0)).glob("attempt-*")
        ends = []
        for folder in sorted(folders, key=lambda path: int(path.name.rpartition("-")[2])):
            end = folder / "end"
            ends.append(json.loads(end.read_text())["outcome"] if end.exists() else None)
        return ends

    def log(self) -> str:
        """Return the batch shell's log."""
        return (self.job_dir / "logs" / "batch.log").read_text()

    def add_command(self, name: str, line: str) -> None:
        """Put a line before a command of the machine."""
        path = self.folder / "bin" / name
        path.write_text(f'#!/bin/bash\n{line}\nexec {shutil.which(name)} "$@"\n')
        path.chmod(0o755)

    def replace_command(self, name: str, lines: str) -> None:
        """Put lines before a stand-in of ours."""
        path = self.folder / "bin" / name
        first, _, rest = path.read_text().partition("\n")
        path.write_text(f"{first}\n{lines}\n{rest}")

    def close(self) -> None:
        """Leave no process and no socket behind."""
        if self.process is not None:
            self.kill_all()
            self.process.wait()
        self._listener.close()

    def _signal(self, number: signal.Signals, wanted: Callable[[bytes], bool]) -> None:
        mark = f"FAKE_SLURM_DIR={self.folder / 'fake'}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                env = (entry / "environ").read_bytes()
                if mark in env.split(b"\0") and wanted(env):
                    os.kill(int(entry.name), number)
            except (OSError, ProcessLookupError):
                continue

    def _write_commands(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        toy, commands = STAND_INS / "toy_train.py", STAND_INS / "cluster_commands.py"
        scripts = {
            name: f'exec {sys.executable} -S "{commands}" {name} "$@"'
            for name in ("srun", "scontrol", "sbatch")
        }
        scripts["python"] = (
            'if [ "$1" = -c ]; then\n'
            ': >"$MOESCALE_ATTEMPT/torchrun-$SLURM_NODEID"\n'
            'while [ "$TOY_HOLD_AT" = 0 -a ! -e "$MOESCALE_ATTEMPT/asked" ]; do sleep 0.05; done\n'
            f'exec {sys.executable} "$@"\nfi\n'
            f'exec {sys.executable} -S "{toy}" "$@"'
        )
        scripts["python3"] = scripts["python"]
        # apptainer exec --bind A:B --pwd C IMAGE COMMAND...
        scripts["apptainer"] = 'shift 6; exec "$@"'
        for name, line in scripts.items():
            (folder / name).write_text(f"#!/bin/bash\n{line}\n")
            (folder / name).chmod(0o755 | stat.S_IEXEC)
