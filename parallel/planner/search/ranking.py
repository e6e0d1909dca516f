"""The layouts that a search found, as a table shows them: those nearly like a faster one apart."""

from bisect import bisect_left, bisect_right, insort
from math import inf
from typing import NamedTuple

from parallel.planner.prediction import LayoutPrediction

MEMORY_STEP = 0.05
"""Share of a card's memory that a slower layout must need less to be worth a look."""


class Row(NamedTuple):
    """A layout, and those that are nearly like it."""

    one: LayoutPrediction
    near: list[LayoutPrediction]
    """Slower ones of the same shape that do not leave more memory free by `MEMORY_STEP`."""


class Ranking:
    """Layouts that fit, fastest first."""

    def __init__(self, count: int, memory_bytes: float) -> None:
        """Take how many rows are asked for, and a card's memory."""
        self._count, self._step = count, MEMORY_STEP * memory_bytes
        self._ordered: list[tuple[float, int, LayoutPrediction]] = []
        self.slowest_row = inf
        """Seconds of the last row that is shown; infinite while there are fewer."""

    def add(self, one: LayoutPrediction) -> None:
        """Add a layout."""
        insort(self._ordered, (one.step_seconds, len(self._ordered), one))
        if len(self._ordered) >= self._count and one.step_seconds < self.slowest_row:
            rows = self.rows()
            self.slowest_row = rows[-1].one.step_seconds if len(rows) == self._count else inf

    def rows(self) -> list[Row]:
        """Return the fastest rows, as many as were asked for, with what is like them.

        A layout is a row if it needs less memory by `MEMORY_STEP` than all faster rows of its
        shape: tensor, pipeline, expert and expert-tensor parallelism. Up to the last row's seconds,
        others are counted with the fastest row that is not larger.
        """
        rows: list[Row] = []
        shapes: dict[tuple[int, ...], list[Row]] = {}
        for _, _, one in self._ordered:
            same = shapes.setdefault(_shape(one), [])
            most = one.memory.total_bytes + self._step
            like = next((row for row in same if row.one.memory.total_bytes < most), None)
            if like is not None:
                like.near.append(one)
                continue
            if len(rows) == self._count:
                break
            same.append(Row(one, []))
            rows.append(same[-1])
        return rows


class Front:
    """Seconds and memory of the layouts that were found and that no other beats in both."""

    def __init__(self, memory_bytes: float) -> None:
        """Take a card's memory."""
        self._step = MEMORY_STEP * memory_bytes
        self._seconds: list[float] = []
        self._bytes: list[int] = []

    @property
    def fastest(self) -> float:
        """Seconds of the fastest; infinite while there is none."""
        return self._seconds[0] if self._seconds else inf

    def is_behind(self, seconds: float, least_bytes: float) -> bool:
        """Whether what is not faster nor smaller frees no `MEMORY_STEP` more than any faster."""
        return self._least_bytes(seconds) - self._step < least_bytes

    def _least_bytes(self, seconds: float) -> float:
        """Return the least bytes of those that take at most `seconds`; infinite without one."""
        number = bisect_right(self._seconds, seconds)
        return self._bytes[number - 1] if number else inf

    def add(self, prediction: LayoutPrediction) -> None:
        """Add a layout, and drop those that it beats."""
        seconds, needed = prediction.step_seconds, prediction.memory.total_bytes
        if self._least_bytes(seconds) <= needed:
            return
        number = last = bisect_left(self._seconds, seconds)
        while last < len(self._seconds) and self._bytes[last] >= needed:
            last += 1
        self._seconds[number:last] = [seconds]
        self._bytes[number:last] = [needed]


def _shape(one: LayoutPrediction) -> tuple[int, ...]:
    layout = one.work.layout
    return layout.tp, layout.pp, layout.ep, layout.expert_tp
