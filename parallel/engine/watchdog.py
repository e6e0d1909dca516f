"""Ends a rank that makes no progress, and says which collective it waits in.

A collective waits for ever, or for its backend's own timeout, when another rank hangs. Every rank
watches itself: the one that hangs and those that wait for it all end, with a non-zero exit code,
so that whoever started them (torchrun, srun) ends the rest and may start them again.
"""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

EXIT_CODE = 1
_TORCH = f"{os.sep}torch{os.sep}"
_COLLECTIVES = f"{os.sep}torch{os.sep}distributed{os.sep}distributed_c10d.py"


class Watchdog:
    """Watches the thread that made it, from a thread of its own."""

    def __init__(
        self,
        rank: int,
        timeout_s: float,
        end: Callable[[int], object] = os._exit,
        say: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        """Begin to watch; `timeout_s` seconds without `beat` end the process."""
        self.rank, self.timeout_s = rank, timeout_s
        self._end, self._say = end, say
        self._watched = threading.get_ident()
        self._doing, self._beats = "the start", 0
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self, doing: str | None = None) -> None:
        """Say that the run goes on, and what it does now (none: as before)."""
        self._doing, self._beats = doing or self._doing, self._beats + 1

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        beats, silent_s, pause_s = 0, 0.0, min(1.0, self.timeout_s / 4)
        while not self._closed.wait(pause_s):
            # Counted in looks: where the whole machine stood still, this rank does not hang.
            silent_s = silent_s + pause_s if self._beats == beats else 0.0
            beats = self._beats
            if silent_s >= self.timeout_s:
                self._say(
                    f"moe: rank {self.rank}: no progress for {silent_s:.0f} s in {self._doing}:"
                    f" {waits_in(self._watched)}; ending this rank (parallel.timeout_s ="
                    f" {self.timeout_s:g})"
                )
                self._end(EXIT_CODE)
                return


def waits_in(thread: int) -> str:
    """Say where a thread is: the collective it waits in, or the line it runs.

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
    """Return the outermost function of torch's collectives on a thread's stack."""
    name = None
    while frame is not None:
        if frame.f_code.co_filename.endswith(_COLLECTIVES):
            name = frame.f_code.co_name
        elif name is not None and _TORCH not in frame.f_code.co_filename:
            return name
        frame = frame.f_back
    return name


def _caller(frame: FrameType | None) -> str:
    """Return the innermost place outside torch."""
    while frame is not None and _TORCH in frame.f_code.co_filename:
        frame = frame.f_back
    if frame is None:
        return "an unknown place"
    path = Path(frame.f_code.co_filename)
    return f"{frame.f_code.co_name} ({path.parent.name}/{path.name}:{frame.f_lineno})"
