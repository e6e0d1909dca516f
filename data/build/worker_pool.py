"""Processing work units on all cores, in bounded memory; no worker outlives its parent."""

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

UNITS_PER_WORKER = 2

Result = TypeVar("Result")
UnitCallback = Callable[[WorkUnit, Tally, int], None]
"""Called with each finished unit, its counts and its number of tokens."""

_processor: UnitProcessor


def available_cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_units(
    settings: WorkerSettings,
    units: Iterator[WorkUnit],
    num_workers: int,
    total_bytes: int,
    on_done: UnitCallback,
) -> None:
    """Write the output of every unit; small inputs are processed in this process.

    Raises:
        DataError: A unit was refused (`strict`).
        WorkerError: A worker process died.
    """
    if num_workers == 1 or total_bytes <= UNIT_BYTES:
        processor = UnitProcessor(settings)
        for unit in units:
            on_done(unit, *processor.process(unit))
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, spawn, initializer=_start_worker, initargs=(settings,))
    try:
        _submit_all(pool, units, num_workers * UNITS_PER_WORKER, on_done)
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process died (out of memory?): the same command continues where it was;"
            " fewer --workers need less memory"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def run_in_subprocess(work: Callable[..., Result], *args: Any) -> Result:
    """Call `work` in a new process, which returns its memory when it ends.

    A signal to this process ends that one at once, whichever library it is in.

    Raises:
        Exception: As `work` raises.
        WorkerError: The process died.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send_result, args=(sender, work, args))
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        raise WorkerError("a worker process died (out of memory?): start again") from None
    finally:
        process.kill()
        process.join()
    if error is not None:
        raise error
    returned: Result = result
    return returned


def _send_result(sender: Connection, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    _end_with_parent()
    try:
        sender.send((work(*args), None))
    except Exception as error:  # noqa: BLE001 - the receiver raises it
        sender.send((None, error))


def _submit_all(
    pool: ProcessPoolExecutor, units: Iterator[WorkUnit], max_running: int, on_done: UnitCallback
) -> None:
    running: dict[Future[tuple[Tally, int]], WorkUnit] = {}
    for unit in units:
        running[pool.submit(_process_unit, unit)] = unit
        while len(running) >= max_running:
            _collect(running, on_done)
    while running:
        _collect(running, on_done)


def _collect(running: dict[Future[tuple[Tally, int]], WorkUnit], on_done: UnitCallback) -> None:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        unit = running.pop(future)
        on_done(unit, *future.result())


def _start_worker(settings: WorkerSettings) -> None:
    global _processor  # noqa: PLW0603  (one per process)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _end_with_parent()
    _processor = UnitProcessor(settings)


def _end_with_parent() -> None:
    """Leave signals to the parent, and exit when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the pool
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    """Exit when the parent is killed: the pool's queues would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _process_unit(unit: WorkUnit) -> tuple[Tally, int]:
    return _processor.process(unit)
