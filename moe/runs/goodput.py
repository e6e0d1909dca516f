"""How much of what a run was allocated became training that stayed, over all its starts."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def process_age_s() -> float:
    """Return seconds since this process began, by a clock that nobody sets (Linux)."""
    stat = Path("/proc/self/stat").read_text()
    # Field 22, counted after the command's name, which may hold spaces (man 5 proc).
    began_ticks = int(stat.rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began_ticks / os.sysconf("SC_CLK_TCK")


def begun(
    starts: Sequence[Mapping[str, Any]], last_row: Mapping[str, Any] | None, new: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the starts of a run with a new one, the one before closed.

    A start that was killed could not say so: its last metrics row tells how far it came.
    """
    closed = [dict(start) for start in starts]
    if closed and closed[-1]["ended"] is None:
        killed = closed[-1]
        killed["ended"] = "killed"
        if last_row is not None and last_row["step"] > killed["first_step"]:
            killed["tokens"] = last_row["tokens"] - killed["first_tokens"]
            killed["allocated_s"] = max(killed["allocated_s"], last_row["allocated_s"])
    return [*closed, {**new, "tokens": 0, "ended": None}]


def goodput(
    starts: Sequence[Mapping[str, Any]], tokens: int, train_time_s: float
) -> dict[str, Any]:
    """Return what came of the allocated time.

    Args:
        starts: Every start with `ranks`, `allocated_s` (a killed one's: until its last metrics
            row) and `tokens` that it trained on.
        tokens: Useful tokens: those in the model as it is now.
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
