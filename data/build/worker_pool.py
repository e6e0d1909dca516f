"""Running units of work on all cores, bounded in memory, leaving nothing behind when killed."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from data.build.unit_output import UnitProcessor, WorkerSettings
from data.cleaning.tally import Tally
from data.errors import WorkerError
from data.sources.work_units import UNIT_BYTES, WorkUnit

UNITS_AHEAD = 2

Result = TypeVar("Result")
Done = Callable[[WorkUnit, Tally, int], None]
"""Called with each finished unit, its counts and its tokens."""

_maker: UnitProcessor


def available_cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_units(
    job: WorkerSettings, units: Iterator[WorkUnit], num_workers: int, total_bytes: int, done: Done
) -> None:
    """Make the part of every unit; small inputs are handled in this process.

    Raises:
        DataError: A unit was refused (`strict`).
        WorkerError: A worker process died.
    """
    if num_workers == 1 or total_bytes <= UNIT_BYTES:
        maker = UnitProcessor(job)
        for unit in units:
            done(unit, *maker.make(unit))
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, spawn, initializer=_start_worker, initargs=(job,))
    try:
        _feed(pool, units, num_workers * UNITS_AHEAD, done)
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process died (out of memory?): the same command continues where it was;"
            " fewer --workers need less memory"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def in_own_process(work: Callable[..., Result], *args: Any) -> Result:
    """Return what `work` returns, from a process that takes its memory with it.

    A signal ends that process at once, whatever library it is in.

    Raises:
        Exception: As `work` does.
        WorkerError: The process died.
    """
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_answer, args=(its, work, args))
    process.start()
    its.close()
    try:
        result, fault = mine.recv()
    except EOFError:
        raise WorkerError("a worker process died (out of memory?): start again") from None
    finally:
        process.kill()
        process.join()
    if fault is not None:
        raise fault
    answer: Result = result
    return answer


def _answer(asker: Connection, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    _follow_parent()
    try:
        asker.send((work(*args), None))
    except Exception as fault:  # noqa: BLE001 - the asker raises it
        asker.send((None, fault))


def _feed(pool: ProcessPoolExecutor, units: Iterator[WorkUnit], ahead: int, done: Done) -> None:
    running: dict[Future[tuple[Tally, int]], WorkUnit] = {}
    for unit in units:
        running[pool.submit(_make_part, unit)] = unit
        while len(running) >= ahead:
            _collect(running, done)
    while running:
        _collect(running, done)


def _collect(running: dict[Future[tuple[Tally, int]], WorkUnit], done: Done) -> None:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        unit = running.pop(future)
        done(unit, *future.result())


def _start_worker(job: WorkerSettings) -> None:
    global _maker  # noqa: PLW0603  (one a process)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _follow_parent()
    _maker = UnitProcessor(job)


def _follow_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the parent is killed: the pool's queues would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_part(unit: WorkUnit) -> tuple[Tally, int]:
    return _maker.make(unit)
