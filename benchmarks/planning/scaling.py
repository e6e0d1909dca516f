"""Strong and weak scaling: the best layout on ever more cards, and where more stop paying."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from benchmarks.errors import BenchmarkError
from benchmarks.planning.job import MAX_GPUS
from benchmarks.planning.layout_text import layout_text
from benchmarks.planning.planner import Planner
from parallel.errors import ParallelError
from parallel.planner.prediction import LayoutPrediction

PAYS = 0.5
"""Share of the fewest cards' tokens a second and card that each added card must bring."""
Kind = Literal["strong", "weak"]


@dataclass(frozen=True, kw_only=True)
class ScalePoint:
    """The best layout on a number of cards."""

    gpus: int
    global_batch_size: int
    best: LayoutPrediction | None
    reason: str | None
    """Why there is none."""

    @property
    def tokens_per_second(self) -> float | None:
        """Of all cards together."""
        return None if self.best is None else self.best.tokens_per_second * self.gpus


@dataclass(frozen=True, kw_only=True)
class ScalingCurve:
    """Points by rising numbers of cards."""

    kind: Kind
    """`strong`: the same global batch; `weak`: it grows with the cards."""
    points: tuple[ScalePoint, ...]

    def efficiency(self, point: ScalePoint) -> float | None:
        """Return tokens a second and card over those on the fewest cards that have a layout."""
        first = next((one.best for one in self.points if one.best is not None), None)
        if first is None or point.best is None:
            return None
        return point.best.tokens_per_second / first.tokens_per_second

    @property
    def pays_up_to(self) -> int | None:
        """The most cards that pay: each added since the count before brings `PAYS` of its worth."""
        last = next((point.gpus for point in self.points if point.best is not None), None)
        for _, point, worth in self._added():
            if worth < PAYS:
                break
            last = point.gpus
        return last

    @property
    def verdict(self) -> str | None:
        """Up to where more cards pay, and what those beyond bring; None where nothing fits."""
        if self.pays_up_to is None:
            return None
        for before, point, worth in self._added():
            if worth < PAYS:
                return (
                    f"{self.kind} scaling pays up to {before:,} cards: each card added from there"
                    f" to {point.gpus:,} brings {worth:.0%} of what one brings on the fewest"
                )
        return f"{self.kind} scaling pays up to {self.pays_up_to:,} cards, the most that were tried"

    def _added(self) -> Iterator[tuple[int, ScalePoint, float]]:
        """Yield each point after the first, the cards before it, and what each added card brings.

        That is its tokens a second over those of a card on the fewest cards.
        """
        known = [(point, speed) for point in self.points if (speed := point.tokens_per_second)]
        for (last, before), (point, speed) in pairwise(known):
            first, first_speed = known[0]
            worth = (speed - before) / (point.gpus - last.gpus) * first.gpus / first_speed
            yield last.gpus, point, worth

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "kind": self.kind,
            "pays_up_to": self.pays_up_to,
            "points": [
                {
                    "gpus": point.gpus,
                    "global_batch_size": point.global_batch_size,
                    "tokens_per_s": point.tokens_per_second,
                    "efficiency": self.efficiency(point),
                    "text": None if point.best is None else layout_text(point.best.work),
                    "layout": None if point.best is None else point.best.as_json(),
                    "reason": point.reason,
                }
                for point in self.points
            ],
        }


def parse_sweep(text: str) -> tuple[int, ...]:
    """Read `64:16384` as 64, 128, ... 16384: doubled from the first, the last included.

    Raises:
        BenchmarkError: It is no such range.
    """
    words = text.split(":")
    numbers = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 9]
    if len(words) != 2 or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] <= MAX_GPUS:
        raise BenchmarkError(f"--sweep-gpus {text!r}: give FEWEST:MOST, for example 64:16384")
    fewest, most = numbers
    counts = [fewest]
    while counts[-1] * 2 < most:
        counts.append(counts[-1] * 2)
    return tuple(dict.fromkeys([*counts, most]))


def scaling_curves(planner: Planner, counts: tuple[int, ...]) -> tuple[ScalingCurve, ScalingCurve]:
    """Return strong and weak scaling; weak from the job's batch on the fewest cards.

    Raises:
        ParallelError: No number of cards has a layout.
    """
    strong = ScalingCurve(kind="strong", points=tuple(_points(planner, counts, weak=False)))
    weak = ScalingCurve(kind="weak", points=tuple(_points(planner, counts, weak=True)))
    if all(point.best is None for curve in (strong, weak) for point in curve.points):
        raise ParallelError(str(strong.points[-1].reason))
    return strong, weak


def _points(planner: Planner, counts: tuple[int, ...], *, weak: bool) -> Iterator[ScalePoint]:
    batch = planner.job.batch.global_batch_size
    for gpus in counts:
        size = batch * gpus // counts[0] if weak else batch
        best, reason = None, None
        try:
            best = planner.for_batch(gpus, size).search(1).best[0]
        except ParallelError as error:
            reason = str(error)
        yield ScalePoint(gpus=gpus, global_batch_size=size, best=best, reason=reason)
