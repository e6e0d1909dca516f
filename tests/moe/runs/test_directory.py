"""A run's directory: who may write it, and what its record says of the code."""

import errno
import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe.config.experiment import make_experiment
from moe.errors import ConfigError, TrainingStoppedError
from moe.runs import directory
from moe.runs.directory import RunDirectory
from moe.runs.files import ROWS
from moe.runs.record import new_record, read_record_if_any
from moe.training.startup.acquire import acquired_run

WATCHDOG: Any = SimpleNamespace(storage=lambda _: nullcontext())
EXPERIMENT: Any = SimpleNamespace(name="a", content_hash="0123abcd")


def test_run_directory_that_cannot_be_locked_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()  # as one that belongs to someone else, which root could open
    with pytest.raises(ConfigError, match=r"run directory .*: choose another with --run-dir"):
        RunDirectory(tmp_path, EXPERIMENT, resume=False)


def test_record_of_a_commit_takes_no_lock_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it did, somebody's `git commit` in the checkout would fail."""
    git = tmp_path / "git"
    git.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert new_record(EXPERIMENT)["git"]["dirty"] is False
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert all(call.startswith("--no-optional-locks ") for call in calls)


def experiment(name: str = "a", **train: Any) -> Any:
    train = {"steps": 4, "seq_len": 8, "global_batch_size": 1, **train}
    return make_experiment({"name": name, "model": {"preset": "tiny"}, "train": train})


def test_a_run_that_failed_before_its_first_step_leaves_the_directory_free(tmp_path: Path) -> None:
    engine: Any = SimpleNamespace(is_main=True, world_size=1)
    with (
        pytest.raises(ValueError, match="no"),
        acquired_run(tmp_path, experiment(), engine, WATCHDOG, False, None),
    ):
        raise ValueError("no\nmeter")
    record = read_record_if_any(tmp_path)
    assert (record["status"], record["failure"]) == ("failed", "no meter")
    run = RunDirectory(tmp_path, experiment(seq_len=16), resume=False)
    run.update({"status": "running", "ledger": {}})
    run.release()
    assert "failure" not in json.loads((tmp_path / "record.json").read_text())
    with pytest.raises(ConfigError, match="already holds a run"):
        RunDirectory(tmp_path, experiment(seq_len=16), resume=False)


@pytest.mark.parametrize("file", ["metrics.jsonl", "checkpoints/step-00000004/index.json"])
def test_a_run_without_a_record_that_trained_is_not_taken(tmp_path: Path, file: str) -> None:
    RunDirectory(tmp_path, experiment(), resume=False).release()
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text('{"step": 1, "tokens": 8}\n')
    with pytest.raises(ConfigError, match="already holds a run"):
        RunDirectory(tmp_path, experiment(), resume=False)


def test_a_stop_is_no_failure(tmp_path: Path) -> None:
    engine: Any = SimpleNamespace(is_main=True, world_size=1)
    with (
        pytest.raises(TrainingStoppedError),
        acquired_run(tmp_path, experiment(), engine, WATCHDOG, False, None),
    ):
        raise TrainingStoppedError.after(3)
    record = read_record_if_any(tmp_path)
    assert record["status"] == "stopped"
    assert "failure" not in record


@pytest.mark.parametrize(
    "name", ["checkpoints", "dumps", "events", "metrics.jsonl", ".lock", "phases.csv", "wandb"]
)
def test_a_run_writes_through_no_link(name: str, tmp_path: Path) -> None:
    outside, path = tmp_path / "outside", tmp_path / "run"
    path.mkdir()
    (path / name).symlink_to(outside)
    with pytest.raises(ConfigError, match=rf"run/{name}: a symbolic link.*or choose another"):
        RunDirectory(path, experiment(), resume=True)
    assert [inner.name for inner in path.iterdir()] == [name]
    assert not outside.exists()


def test_rows_of_others_stay(tmp_path: Path) -> None:
    """What a user keeps in a run's folder is not the run's, whatever its name and rows."""
    run = RunDirectory(tmp_path, experiment(), resume=True)
    others = {"data.jsonl": '{"text": "mine"}\n', "samples.jsonl": '{"step": 9}\nno JSON\n'}
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    for name in ROWS:
        (tmp_path / name).write_text('{"step": 1}\n{"step": 9}\n')
    run.drop_rows_after(4)
    assert {name: (tmp_path / name).read_text() for name in others} == others
    assert {(tmp_path / name).read_text() for name in ROWS} == {'{"step": 1}\n'}


def test_a_link_to_what_no_run_writes_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").symlink_to("/etc/hostname")
    RunDirectory(tmp_path, experiment(), resume=True).release()
    assert (tmp_path / "notes").is_symlink()


@pytest.mark.parametrize(("failures", "is_written"), [(3, True), (4, False)])
def test_a_small_file_waits_for_room(
    failures: int, is_written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that does not fit fills the disk until it gives up."""
    left, append_row = [failures], directory.append_row

    def append(path: Path, row: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append_row(path, row)

    monkeypatch.setattr(directory, "append_row", append)
    monkeypatch.setattr(directory, "ROOM_AFTER_S", (0.0, 0.0, 0.0))
    run = RunDirectory(tmp_path, experiment(), resume=False)
    with nullcontext() if is_written else pytest.raises(OSError, match="No space left"):
        run.append("metrics.jsonl", {"step": 1, "tokens": 8})
    assert (run.last_metrics() is not None) == is_written
    run.release()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"step": "x", "tokens": 8}', "the last row: step = 'x'"),
        ('{"step": 1}', "the last row: tokens is missing"),
        ('{"step": 1, "tokens": 8, "training_flops": -1}', "the last row: training_flops = -1"),
    ],
)
def test_a_run_whose_last_row_is_none_is_not_resumed(
    row: str, message: str, tmp_path: Path
) -> None:
    RunDirectory(tmp_path, experiment(), resume=False).release()
    (tmp_path / "metrics.jsonl").write_text(row + "\n")
    with pytest.raises(ConfigError, match=rf"metrics.jsonl: {message}"):
        RunDirectory(tmp_path, experiment(), resume=True)
