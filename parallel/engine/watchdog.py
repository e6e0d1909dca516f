"""A watchdog that ends a rank without progress and reports which collective it waits in.

A collective waits forever, or until its backend's own time-out, when another rank hangs. Every rank
watches itself: the one that hangs and those that wait for it all exit with a non-zero code, so that
their launcher (torchrun, srun) ends the rest and may restart them.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

EXIT_CODE = 1
_TORCH = f"{os.sep}torch{os.sep}"
_COLLECTIVES = f"{os.sep}torch{os.sep}distributed{os.sep}distributed_c10d.py"


class Watchdog:
    """Watches the thread that creates it, from a thread of its own."""

    def __init__(
        self,
        rank: int,
        timeout_s: float,
        storage_timeout_s: float,
        end: Callable[[int], object] = os._exit,
        report: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        """Start watching: `timeout_s` seconds without `beat` end the process.

        While it waits for storage (`storage`), `storage_timeout_s` seconds do.
        `end` and `report` replace exiting and writing to standard error in tests.
        """
        self.rank = rank
        self._limits = {"timeout_s": timeout_s, "storage_timeout_s": storage_timeout_s}
        self._limit = "timeout_s"
        self._end, self._report = end, report
        self._watched = threading.get_ident()
        self._activity, self._beats = "the start", 0
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self, activity: str | None = None) -> None:
        """Signal progress, and what the run does now (None: the same as before)."""
        self._activity, self._beats = activity or self._activity, self._beats + 1

    @contextmanager
    def storage(self, activity: str) -> Iterator[None]:
        """Wait for storage in this context, which is slow at times, but not for ever."""
        self.beat(activity)
        self._limit = "storage_timeout_s"
        try:
            yield
        finally:
            self._limit = "timeout_s"
            self.beat()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        beats, silent_s, pause_s = 0, 0.0, min(1.0, *(s / 4 for s in self._limits.values()))
        while not self._closed.wait(pause_s):
            # Counted in wake-ups, not by the clock: a suspended machine is no hanging rank.
            silent_s = silent_s + pause_s if self._beats == beats else 0.0
            beats = self._beats
            limit = self._limit
            if silent_s >= self._limits[limit]:
                self._report(
                    f"moe: rank {self.rank}: no progress for {silent_s:.0f} s in {self._activity}:"
                    f" {waits_in(self._watched)}; ending this rank (parallel.{limit} ="
                    f" {self._limits[limit]:g})"
                )
                self._end(EXIT_CODE)
                return


def waits_in(thread: int) -> str:
    """Describe where a thread is: the collective it waits in, or the line it runs.

    The backward pass on a GPU runs in another thread: any thread inside a collective counts.
    """
    frames = sys._current_frames()
    others = (frame for number, frame in frames.items() if number != thread)
    watched = frames.get(thread)
    for frame in ([watched] if watched else []) + list(others):
        if name := _collective(frame):
            return f"waits in the collective {name}, called by {_caller(frame)}"
    return f"no collective is running; the rank is at {_caller(watched)}"


def _collective(frame: FrameType | None) -> str | None:
    """Return the name of torch's outermost collective on a thread's stack, if any."""
    name = None
    while frame is not None:
        if frame.f_code.co_filename.endswith(_COLLECTIVES):
            name = frame.f_code.co_name
        elif name is not None and _TORCH not in frame.f_code.co_filename:
            return name
        frame = frame.f_back
    return name


def _caller(frame: FrameType | None) -> str:
    """Return the innermost function outside torch, with file and line."""
    while frame is not None and _TORCH in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return "an unknown location"
    path = Path(frame.f_code.co_filename)
    return f"{frame.f_code.co_name} ({path.parent.name}/{path.name}:{frame.f_lineno})"
