"""The starts of a run, and its goodput: how much allocated time became training that was kept."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Start = dict[str, Any]


@dataclass
class Allocation:
    """The time allocated to the running start, of which one process may make several in turn."""

    began_s: float = 0.0
    """Age of the process at which the start before ended, s."""

    def seconds(self) -> float:
        """Return seconds since the process began, or since the start before ended."""
        return process_age_s() - self.began_s

    def end(self) -> None:
        """Let the next start's time begin."""
        self.began_s = process_age_s()


ALLOCATION = Allocation()


def process_age_s() -> float:
    """Return seconds since this process started, by a clock that nobody sets (Linux)."""
    stat = Path("/proc/self/stat").read_text()
    # Field 22, counted after the command's name, which may hold spaces (man 5 proc).
    started_ticks = int(stat.rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def append_start(
    starts: Sequence[Mapping[str, Any]], last_row: Mapping[str, Any] | None, new: Mapping[str, Any]
) -> list[Start]:
    """Return the starts of a run with a new one; the one before is closed.

    A start that was killed could not close itself: the last metrics row shows how far it came.
    """
    closed = [dict(start) for start in starts]
    if closed and closed[-1]["ended"] is None:
        killed = closed[-1]
        killed["ended"] = "killed"
        if last_row is not None and last_row["step"] > killed["first_step"]:
            killed["tokens"] = last_row["tokens"] - killed["first_tokens"]
            killed["allocated_s"] = max(killed["allocated_s"], last_row.get("allocated_s") or 0.0)
    return [*closed, {**new, "tokens": 0, "ended": None}]


def close_start(
    starts: Sequence[Mapping[str, Any]], *, tokens: int, allocated_s: float, ended: str
) -> list[Start]:
    """Return the starts of a run with the newest one closed.

    Args:
        starts: As of `append_start`.
        tokens: Tokens of the run by now, over all starts.
        allocated_s: Seconds that the start was allocated.
        ended: How it ended: `finished` or `stopped`.
    """
    *earlier, newest = (dict(start) for start in starts)
    trained = tokens - newest["first_tokens"]
    return [*earlier, newest | {"tokens": trained, "allocated_s": allocated_s, "ended": ended}]


def goodput(
    starts: Sequence[Mapping[str, Any]], tokens: int, train_time_s: float
) -> dict[str, Any]:
    """Return what the allocated time was used for.

    Args:
        starts: Every start with `ranks`, `allocated_s` (a killed one's: until its last metrics
            row) and `tokens` that it trained on.
        tokens: Useful tokens: those that the model as it is now was trained on.
        train_time_s: Seconds of the training steps that made it.
    """
    allocated_s = sum(start["allocated_s"] for start in starts)
    rank_s = sum(start["allocated_s"] * start["ranks"] for start in starts)
    trained = sum(start["tokens"] for start in starts)
    return {
        "starts": len(starts),
        "useful_tokens": tokens,
        "lost_tokens": trained - tokens,
        "allocated_s": allocated_s,
        "allocated_rank_s": rank_s,
        "tokens_per_allocated_rank_s": tokens / rank_s,
        "useful_share_of_time": train_time_s / allocated_s,
    }
