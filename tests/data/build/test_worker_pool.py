"""Worker processes that die at their start: an error, never a hang."""

import multiprocessing.resource_tracker
import multiprocessing.spawn
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data.build.unit_output import WorkerSettings
from data.build.worker_pool import run_in_subprocess, run_units
from data.errors import WorkerError
from data.sources.work_units import UNIT_BYTES, WorkUnit
from tests.support.store_helpers import recipe

MORE_THAN_A_PIPE_HOLDS = "x" * (1 << 20)


@pytest.fixture
def dead_at_start() -> Iterator[None]:
    """Every process that is started ends before it reads anything."""

    def hung(*_: Any) -> None:
        raise AssertionError("waits for a process that died")

    multiprocessing.resource_tracker.ensure_running()  # a process of multiprocessing's own
    former = multiprocessing.spawn.get_executable()
    multiprocessing.spawn.set_executable("/bin/false")
    handler = signal.signal(signal.SIGALRM, hung)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    multiprocessing.spawn.set_executable(former)


@pytest.mark.usefixtures("dead_at_start")
def test_a_process_of_its_own() -> None:
    with pytest.raises(WorkerError, match=r"a worker process died .*__main__.*: start again"):
        run_in_subprocess(len, MORE_THAN_A_PIPE_HOLDS)


@pytest.mark.usefixtures("dead_at_start")
def test_a_pool(tmp_path: Path) -> None:
    settings = WorkerSettings(recipe(tmp_path), MORE_THAN_A_PIPE_HOLDS, "", tmp_path, strict=False)
    unit = WorkUnit(source=0, file=0, block=0, format="text", paths=(), num_bytes=0)
    with pytest.raises(WorkerError, match="a worker process died .*__main__"):
        run_units(settings, iter([unit]), 2, 2 * UNIT_BYTES, lambda *_: None)
