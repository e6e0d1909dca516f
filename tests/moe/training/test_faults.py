"""Faults of storage, data, clocks and checkpoints, injected into real runs."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from data.build.build import build_store
from moe.checkpoint.directory import complete_checkpoints, latest_checkpoint, step_of
from moe.config.experiment import Experiment
from tests.support.distributed import RankFailedError
from tests.support.fault_injection import At, assert_same_parameters, record, rows, run
from tests.support.layout_equivalence import Shard, make
from tests.support.needs import lack

TRAIN = {"steps": 8, "warmup_steps": 1, "checkpoint_interval": 2, "keep_checkpoints": 9,
         "global_batch_size": 4}  # fmt: skip


@pytest.fixture(scope="module")
def experiment(store: Path) -> Experiment:
    return make(store, train=TRAIN)


@pytest.fixture(scope="module")
def undisturbed(
    experiment: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[list[Shard]]]:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    return run_dir, run(1, experiment, run_dir)


def _assert_as_undisturbed(
    run_dir: Path, parameters: list[list[Shard]], undisturbed: tuple[Path, list[list[Shard]]]
) -> None:
    whole, expected = undisturbed
    assert rows(run_dir) == rows(whole)
    assert_same_parameters(parameters, expected)


def _steps(run_dir: Path) -> list[int]:
    return [step_of(path) for path in complete_checkpoints(run_dir / "checkpoints")]


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-64])


@pytest.mark.parametrize("damage", [_flip, _truncate])
def test_a_damaged_checkpoint_is_named_and_an_earlier_one_used_when_asked(
    damage: Any, experiment: Experiment, undisturbed: Any, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed[0], run_dir)
    newest = latest_checkpoint(run_dir / "checkpoints")
    assert newest is not None
    damage(newest / "rank-00000.safetensors")
    message = (
        "step-00000008/rank-00000.safetensors: missing or damaged.*resume from it with --step 6"
    )
    with pytest.raises(RankFailedError, match=message):
        run(1, experiment, run_dir, resume=True)
    assert _steps(run_dir) == [2, 4, 6, 8]
    damage(run_dir / "checkpoints/step-00000006/rank-00000.safetensors")
    with pytest.raises(RankFailedError, match="resume from it with --step 4"):
        run(1, experiment, run_dir, resume=True)
    again = run(1, experiment, run_dir, from_step=4)
    _assert_as_undisturbed(run_dir, again, undisturbed)
    aside = sorted(path.name for path in (run_dir / "checkpoints").glob("set-aside-*"))
    assert aside == ["set-aside-step-00000006", "set-aside-step-00000008"]
    with pytest.raises(RankFailedError, match="no checkpoint of step 5: there are 2, 4, 6, 8"):
        run(1, experiment, run_dir, from_step=5)


@pytest.fixture
def small_disk(tmp_path: Path, undisturbed: Any) -> Iterator[Path]:
    """A file system with room for one checkpoint and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    checkpoint = undisturbed[0] / "checkpoints/step-00000002"
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={3 * size // 2}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        lack("root", "mounting a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def _impatient() -> None:
    from moe.checkpoint import writer

    writer.RETRY_AFTER_S = (0.0,)  # type: ignore[assignment]


def test_a_full_disk_loses_nothing(
    experiment: Experiment, undisturbed: Any, small_disk: Path
) -> None:
    run_dir = small_disk / "run"
    with pytest.raises(RankFailedError, match="StorageError: .*No space left on device"):
        run(1, experiment, run_dir, prepare=_impatient)
    assert _steps(run_dir) == [2]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    _assert_as_undisturbed(run_dir, run(1, experiment, run_dir, resume=True), undisturbed)


def _failing_storage(times: int) -> None:
    """Let the first writes of tensors fail as a broken disk does."""
    from moe.checkpoint import format

    _impatient()
    write, left = format.write_tensors, [times]

    def failing(path: Path, tensors: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        write(path, tensors)

    format.write_tensors = failing


@pytest.mark.parametrize(("times", "kept"), [(1, [2, 4, 6, 8]), (2, [4, 6, 8])])
def test_failing_storage_is_tried_again_and_training_goes_on(
    times: int, kept: list[int], store: Path, undisturbed: Any, tmp_path: Path
) -> None:
    experiment = make(store, train=TRAIN | {"on_failed_save": "continue"})
    parameters = run(
        1, experiment, tmp_path / "run", prepare=partial(_failing_storage, times)
    )  # fmt: skip
    _assert_as_undisturbed(tmp_path / "run", parameters, undisturbed)
    assert _steps(tmp_path / "run") == kept
    failed = record(tmp_path / "run").get("failed_saves", [])
    assert len(failed) == (4 - len(kept))
    assert all("the checkpoint of step 2" in line and "Input/output" in line for line in failed)


def test_a_run_that_cannot_save_stops_soon_on_every_rank(store: Path, tmp_path: Path) -> None:
    """At the first failed save, not at the next one, or at its end."""
    experiment = make(store, {"ep": 2}, train=TRAIN | {"steps": 500, "checkpoint_interval": 2})
    remedy = "the checkpoint of step 2 .* make room or repair it, then continue with --resume"
    with pytest.raises(RankFailedError, match=f"StorageError: {remedy}"):
        run(2, experiment, tmp_path / "run", prepare=partial(_failing_storage, 99))
    assert 2 <= len(rows(tmp_path / "run")) < 500


def _storage_fails_while_no_time_passes(times: int) -> None:
    from moe.checkpoint import writer

    writer.time.sleep = lambda _: None
    writer.RETRY_EVERY_S = 20.0
    _failing_storage(times)


def test_a_run_may_wait_for_storage(store: Path, undisturbed: Any, tmp_path: Path) -> None:
    experiment = make(store, train=TRAIN | {"on_failed_save": "wait"})
    parameters = run(
        1, experiment, tmp_path / "run", prepare=partial(_storage_fails_while_no_time_passes, 5)
    )
    _assert_as_undisturbed(tmp_path / "run", parameters, undisturbed)
    assert _steps(tmp_path / "run") == [2, 4, 6, 8]
    assert "failed_saves" not in record(tmp_path / "run")


def test_a_run_waits_for_storage_no_longer_than_it_may(store: Path, tmp_path: Path) -> None:
    layout = {"storage_timeout_s": 100.0}
    experiment = make(store, layout, train=TRAIN | {"on_failed_save": "wait"})
    with pytest.raises(RankFailedError, match="StorageError: .*step 2 .*tried 6 times"):
        run(
            1,
            experiment,
            tmp_path / "run",
            prepare=partial(_storage_fails_while_no_time_passes, 99),
        )


def test_a_run_whose_last_save_fails_says_what_to_do(store: Path, tmp_path: Path) -> None:
    experiment = make(store, train=TRAIN | {"steps": 2})
    remedy = "tried 2 times: .*: make room or repair it, then continue with --resume"
    with pytest.raises(RankFailedError, match=f"StorageError: .*{remedy}"):
        run(1, experiment, tmp_path / "run", prepare=partial(_failing_storage, 2))
    assert len(record(tmp_path / "run")["failed_saves"]) == 1
    assert not list((tmp_path / "run/checkpoints").iterdir())


_LATER = Event()


def _let_through() -> None:
    _LATER.set()


def _slow_storage() -> None:
    """Let storage take a checkpoint of step 2 only after step 3 has been trained."""
    from moe.checkpoint import format

    write = format.write_tensors

    def slow(path: Path, tensors: Any) -> None:
        assert _LATER.wait(60)
        write(path, tensors)

    format.write_tensors = slow


def test_training_does_not_wait_for_slow_storage(
    experiment: Experiment, undisturbed: Any, tmp_path: Path
) -> None:
    parameters = run(
        1, experiment, tmp_path / "run", prepare=_slow_storage, progress=At(3, _let_through)
    )
    _assert_as_undisturbed(tmp_path / "run", parameters, undisturbed)
    assert _steps(tmp_path / "run") == [2, 4, 6, 8]


def _jump(seconds: float) -> None:
    real = time.time
    time.time = lambda: real() + seconds


@pytest.mark.parametrize("seconds", [-86_400.0, 86_400.0])
def test_clock_jumps_change_nothing(
    seconds: float, experiment: Experiment, undisturbed: Any, tmp_path: Path
) -> None:
    jump = At(3, partial(_jump, seconds))
    parameters = run(1, experiment, tmp_path / "run", progress=jump)
    _assert_as_undisturbed(tmp_path / "run", parameters, undisturbed)
    found = record(tmp_path / "run")
    assert 0 < found["wall_time_s"] < found["goodput"]["allocated_s"] < 3600


def test_a_store_that_changed_is_refused(store: Path, undisturbed: Any, tmp_path: Path) -> None:
    shutil.copytree(undisturbed[0], tmp_path / "run")
    (tmp_path / "other.txt").write_text("another text altogether " * 400)
    build_store([tmp_path / "other.txt"], tmp_path / "store", tokenizer="bytes")
    # The same place, other content: what the run directory's experiment cannot tell.
    changed = make(tmp_path / "store", train=TRAIN | {"steps": 8})
    with pytest.raises(RankFailedError, match="DataError: .*belongs to another sample stream"):
        run(1, changed, tmp_path / "run", resume=True)


def test_retention_keeps_the_last_and_every_nth(store: Path, tmp_path: Path) -> None:
    train = TRAIN | {"checkpoint_interval": 1, "keep_checkpoints": 2, "keep_every": 3}
    run(1, make(store, train=train), tmp_path / "run")
    assert _steps(tmp_path / "run") == [3, 6, 7, 8]
    latest = (tmp_path / "run/checkpoints/latest").read_text()
    assert latest == "step-00000008"
