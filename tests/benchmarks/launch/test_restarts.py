"""`moe train` and torchrun as a user starts them: a rank that hangs, a rank that dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from moe.config.experiment import load_experiment
from parallel.engine.watchdog import Watchdog
from tests.support.distributed import Ranks, run_ranks
from tests.support.fault_injection import record, wait_until
from tests.support.paths import ROOT
from tests.support.trained_runs import run_command, train_here

EXPERIMENT = """
name = "restarts"
[model]
preset = "tiny"
[data]
store = "{store}"
[parallel]
ep = 2
timeout_s = {timeout_s}
storage_timeout_s = {timeout_s}
[train]
steps = {steps}
seq_len = 32
global_batch_size = 4
checkpoint_interval = {interval}
[energy]
source = "model"
"""
STEPS = 12
"""More than a fast machine trains between its first checkpoint and the kill after it."""
HASTE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}
"""Of launchers whose ranks have nothing to save."""
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node=1", "--max-restarts=1",
            "-m", "moescale", "train"]  # fmt: skip


def _write(folder: Path, store: Path, **values: float) -> Path:
    path = folder / "experiment.toml"
    defaults = {"timeout_s": 120, "interval": 1}
    path.write_text(EXPERIMENT.format(store=store, **defaults | values))
    return path


@contextmanager
def _started(arguments: list[Any], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command under way; nothing of it outlives the test."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, env=os.environ | environment, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


def _launch(arguments: tuple[str, ...], environment: dict[str, str]) -> tuple[int, str, str]:
    """Run `moe train` in a session of its own; its ranks are new interpreters."""
    os.setsid()
    os.environ |= environment
    return run_command(("train", *arguments))


def _launched(experiment: Path, run_dir: Path, *options: str, **environment: str) -> Ranks:
    arguments = (str(experiment), "--run-dir", str(run_dir), "--nproc", "2", *options)
    return Ranks(1, _launch, arguments, environment)


def _rank(launcher: int | None, rank: int) -> psutil.Process:
    children = psutil.Process(launcher).children(recursive=True)
    return next(c for c in children if c.environ().get("RANK") == str(rank))


def _saved(run_dir: Path) -> bool:
    return (run_dir / "checkpoints/latest").is_file()


def test_a_hanging_rank_ends_the_run(store: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    experiment = _write(tmp_path, store, steps=100_000, timeout_s=8)
    launcher = _launched(experiment, run_dir, **HASTE)
    wait_until(lambda: _saved(run_dir))
    ranks = [_rank(launcher.processes[0].pid, rank) for rank in (0, 1)]
    ranks[1].suspend()
    [(code, _, said)] = launcher.results()
    assert code == 1
    assert "moe: rank 0: no progress for" in said
    assert "waits in the collective" in said
    assert "rank 0 of 2 failed with exit code 1: continue with --resume" in said
    assert not any(rank.is_running() for rank in ranks)


def test_a_killed_rank_is_started_again_and_the_run_resumes(store: Path, tmp_path: Path) -> None:
    experiment, run_dir = _write(tmp_path, store, steps=STEPS, interval=2), tmp_path / "run"
    run_ranks(2, train_here, load_experiment(experiment, ()), tmp_path / "whole")
    launcher = _launched(experiment, run_dir, "--max-restarts", "1", **HASTE)
    _kill(launcher.processes[0].pid, 0, run_dir)
    [(code, _, said)] = launcher.results()
    assert code == 0, said
    _assert_resumed(record(run_dir), record(tmp_path / "whole"))


def test_a_rank_killed_under_torchrun_is_started_again(store: Path, tmp_path: Path) -> None:
    """As a user starts it: the launcher, too, is an interpreter of its own."""
    experiment, run_dir = _write(tmp_path, store, steps=STEPS, interval=2), tmp_path / "run"
    alone = "parallel.ep=1"
    run_ranks(1, train_here, load_experiment(experiment, [alone]), tmp_path / "whole")
    command = [*TORCHRUN, experiment, "--run-dir", run_dir, "--set", alone]
    with _started(command, **HASTE) as process:
        _kill(process.pid, 0, run_dir)
        _, said = process.communicate(timeout=900)
        assert process.returncode == 0, said
    _assert_resumed(record(run_dir), record(tmp_path / "whole"))


def _kill(launcher: int | None, rank: int, run_dir: Path) -> None:
    """Kill a rank after the first checkpoint."""
    wait_until((run_dir / "record.json").is_file)
    victim = _rank(launcher, rank)
    wait_until(lambda: _saved(run_dir), pause_s=0.005)
    victim.send_signal(signal.SIGKILL)


def _assert_resumed(killed: dict[str, Any], whole: dict[str, Any]) -> None:
    assert killed["final_loss"] == whole["final_loss"]
    assert killed["train_loss"] == whole["train_loss"]
    first, second = killed["starts"]
    assert first["ended"] in {"killed", "failed"}
    assert second["ended"] == "finished"
    assert second["first_step"] > 0
    assert killed["goodput"]["useful_tokens"] == whole["tokens"]
    rows = (Path(killed["run_dir"]) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("whole_group", [False, True])
def test_a_stop_is_told_once(whole_group: bool, store: Path, tmp_path: Path) -> None:
    """By the launcher, whether the signal reached it alone or, as Ctrl-C, its ranks too."""
    run_dir, experiment = tmp_path / "run", _write(tmp_path, store, steps=100_000)
    launcher = _launched(experiment, run_dir)
    pid = launcher.processes[0].pid
    assert pid is not None
    wait_until(lambda: _saved(run_dir))
    if whole_group:
        os.killpg(pid, signal.SIGINT)
    else:
        os.kill(pid, signal.SIGTERM)
    [(code, _, said)] = launcher.results()
    assert code == 75, said
    step = record(run_dir)["steps"]
    told = [line for line in said.splitlines() if "stopped by a signal" in line]
    assert told == [
        f"moe: stopped by a signal after step {step}; the checkpoint is written: continue with"
        " --resume"
    ]


def test_a_watchdog_says_where_a_rank_is_without_a_collective() -> None:
    said: list[str] = []
    ended: list[int] = []
    watchdog = Watchdog(3, 0.5, 0.5, end=ended.append, report=said.append)
    watchdog.beat("reading data")
    wait_until(lambda: ended)
    assert ended == [1]
    assert said[0].startswith("moe: rank 3: no progress for")
    assert "in reading data: no collective is running; the rank is at wait_until" in said[0]


def test_a_watchdog_is_quiet_while_there_is_progress() -> None:
    ended: list[int] = []
    watchdog = Watchdog(0, 3600.0, 3600.0, end=ended.append)
    watchdog.close()
    assert not ended


def test_a_watchdog_gives_storage_a_limit_of_its_own() -> None:
    """A wait for storage outlives `timeout_s`, and ends after `storage_timeout_s`."""
    said: list[str] = []
    ended: list[int] = []
    watchdog = Watchdog(0, 0.2, 2.0, end=ended.append, report=said.append)
    with watchdog.storage("saving the checkpoint of step 7"):
        wait_until(lambda: ended)
    assert "in saving the checkpoint of step 7" in said[0]
    assert said[0].endswith("(parallel.storage_timeout_s = 2)")
    other = Watchdog(0, 0.2, 3600.0, end=ended.append, report=said.append)
    with other.storage("verifying"):
        pass
    wait_until(lambda: len(ended) == 2)
    assert said[1].endswith("(parallel.timeout_s = 0.2)")


BEATING = """
import time
from moe.config.experiment import load_experiment
from parallel.engine.watchdog import Watchdog
from tests.support.distributed import Ranks, run_ranks
watchdog = Watchdog(0, 2.0, 2.0)
print("beats", flush=True)
for _ in range(20):
    time.sleep(0.1)
    watchdog.beat()
"""


def test_a_machine_that_stood_still_is_no_rank_that_hangs() -> None:
    with _started(["-c", BEATING]) as process:
        assert process.stdout and process.stdout.readline() == "beats\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=600)
    assert (process.returncode, said) == (0, "")


def test_a_start_that_was_stopped_is_not_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.launch.training import train_rank
    from moe.errors import TrainingStoppedError

    (tmp_path / "record.json").write_text('{"status": "stopped", "steps": 3}')
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(TrainingStoppedError, match="continue with --resume"):
        train_rank(None, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(("restarts", "starter"), [("0", "rank"), ("2", None)])
def test_a_restart_is_not_refused_for_memory_that_its_predecessor_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: str, starter: str | None
) -> None:
    from benchmarks.launch import training

    class AskedError(Exception):
        """What was to be checked."""

    def ask(_experiment: object, _ranks: int, starter: str | None) -> None:
        raise AskedError(starter)

    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    monkeypatch.setattr(training, "check_before_start", ask)
    with pytest.raises(AskedError) as asked:
        training.train_rank(None, tmp_path)  # type: ignore[arg-type]
    assert asked.value.args == (starter,)
