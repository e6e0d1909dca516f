"""Processing work units on all cores, in bounded memory; no worker outlives its parent."""

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from data.build.unit_output import UnitProcessor, WorkerSettings
from data.cleaning.tally import Tally
from data.errors import WorkerError
from data.sources.work_units import UNIT_BYTES, WorkUnit

UNITS_PER_WORKER = 2
WHY_DEAD = 'out of memory? a script without `if __name__ == "__main__":`?'

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
    with _pickled(settings) as file:
        pool = ProcessPoolExecutor(num_workers, spawn, initializer=_start_worker, initargs=(file,))
        try:
            _submit_all(pool, units, num_workers * UNITS_PER_WORKER, on_done)
        except BrokenProcessPool:
            raise WorkerError(
                f"a worker process died ({WHY_DEAD}): the same command continues where it was;"
                " fewer --workers need less memory"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _pickled(value: Any) -> Iterator[str]:
    """Yield the name of a file that holds a value, for processes that are started meanwhile.

    What a process is given at its start goes through a pipe, and for ever where it is more than
    fits into one and the process dies before it reads: multiprocessing holds both ends.
    """
    with tempfile.NamedTemporaryFile(prefix="moescale-") as file:
        pickle.dump(value, file)
        file.flush()
        yield file.name


def run_in_subprocess(work: Callable[..., Result], *args: Any) -> Result:
    """Call `work` in a new process, which returns its memory when it ends.

    A signal to this process ends that one at once, whichever library it is in.

    Raises:
        Exception: As `work` raises.
        WorkerError: The process died.
    """
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    with _pickled((work, args)) as file:
        process = spawn.Process(target=_send_result, args=(sender, file))
        process.start()
        sender.close()
        try:
            result, error = receiver.recv()
        except EOFError:
            raise WorkerError(f"a worker process died ({WHY_DEAD}): start again") from None
        finally:
            process.kill()
            process.join()
    if error is not None:
        raise error
    returned: Result = result
    return returned


def _send_result(sender: Connection, file: str) -> None:
    _end_with_parent()
    try:
        work, args = pickle.loads(Path(file).read_bytes())
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


def _start_worker(file: str) -> None:
    global _processor  # noqa: PLW0603  (one per process)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _end_with_parent()
    _processor = UnitProcessor(pickle.loads(Path(file).read_bytes()))


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
