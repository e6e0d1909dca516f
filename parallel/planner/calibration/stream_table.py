"""Samples of fp8_quantize.csv: static casts, which only read and write."""

from functools import partial
from pathlib import Path

from parallel.hardware.card import Card
from parallel.planner.calibration.samples import Sample, Terms, read_rows
from parallel.planner.compute_time.memory_bound import stream_seconds

STREAM_SIZES = ("gpu", "tokens", "width")
_MOVED_BYTES = 3.0
"""Of an element: BF16 read, FP8 written."""
_LEAST_BYTES = 150e6
"""Above every card's last-level cache: repeated runs of less read from it."""


def stream_samples(folder: Path, card_name: str, *, held_out: bool) -> list[Sample]:
    """Return the casts that move more than the last-level cache holds, the fastest run of each."""
    fastest: dict[float, float] = {}
    for row in read_rows(folder / "fp8_quantize.csv", STREAM_SIZES, held_out=held_out):
        moved = _MOVED_BYTES * int(row["tokens"]) * int(row["width"])
        if row["gpu"] == card_name and row["op"] == "scale_matrix" and moved > _LEAST_BYTES:
            fastest[moved] = min(float(row["us"]), fastest.get(moved, float("inf")))
    return [
        Sample(group="cast", seconds=us * 1e-6, predict=partial(_predicted, moved))
        for moved, us in fastest.items()
    ]


def _predicted(moved_bytes: float, card: Card, _: Terms) -> float:
    return stream_seconds(card, moved_bytes)
