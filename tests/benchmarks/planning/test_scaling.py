"""Scaling: which counts are tried, and up to where more cards pay."""

from dataclasses import replace

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.planning.layout_text import parse_layout
from benchmarks.planning.scaling import ScalePoint, ScalingCurve, parse_sweep, scaling_curves
from parallel.errors import ParallelError
from tests.benchmarks.planning.jobs import planner


def test_counts_double_and_end_with_the_last() -> None:
    assert parse_sweep("64:512") == (64, 128, 256, 512)
    assert parse_sweep("6:40") == (6, 12, 24, 40)
    assert parse_sweep("8:8") == (8,)


@pytest.mark.parametrize("text", ["", "8", "8:4", "0:8", "a:b", "1:2:3", "-1:8", "1:99999999"])
def test_no_range_is_refused(text: str) -> None:
    with pytest.raises(BenchmarkError, match="give FEWEST:MOST"):
        parse_sweep(text)


def test_cards_pay_while_the_added_ones_bring_half_of_the_first() -> None:
    plans = planner("llama3-8b", 8)
    best = plans.predict(plans.workload(parse_layout("tp=2")))

    def point(gpus: int, speedup: float | None) -> ScalePoint:
        """A made-up best whose tokens a second are `speedup` times those on eight cards."""
        if speedup is None:
            return ScalePoint(gpus=gpus, global_batch_size=8, best=None, reason="none fits")
        seconds = best.step_seconds * gpus / (8 * speedup)
        placement = replace(best.work.placement, num_ranks=gpus)
        step = replace(
            best,
            work=replace(best.work, placement=placement),
            step_seconds=seconds * 8 / gpus,
        )
        return ScalePoint(gpus=gpus, global_batch_size=8, best=step, reason=None)

    points = (point(4, None), point(8, 1.0), point(16, 1.9), point(32, 2.8), point(64, 3.0))
    curve = ScalingCurve(kind="strong", points=points)
    assert curve.efficiency(points[0]) is None
    assert curve.efficiency(points[2]) == pytest.approx(0.95)
    # 16 more cards than 16 bring 0.9 of eight: 45% of their worth.
    assert curve.pays_up_to == 16
    assert curve.verdict == (
        "strong scaling pays up to 16 cards: each card added from there to 32 brings 45% of what"
        " one brings on the fewest"
    )
    nothing = ScalingCurve(kind="weak", points=points[:1])
    assert nothing.pays_up_to is None
    assert nothing.verdict is None
    whole = ScalingCurve(kind="weak", points=points[:3])
    assert whole.verdict == "weak scaling pays up to 16 cards, the most that were tried"


def test_strong_keeps_the_batch_and_weak_grows_it() -> None:
    plans = planner("llama3-8b", 16, global_batch_size=64)
    strong, weak = scaling_curves(plans, (16, 32, 128))
    assert [point.global_batch_size for point in strong.points] == [64, 64, 64]
    assert [point.global_batch_size for point in weak.points] == [64, 128, 512]
    first, last = strong.points[0], strong.points[-1]
    assert first.best is not None
    assert last.best is not None
    assert first.best == plans.for_batch(16, 64).search(1).best[0]
    efficiency, weak_efficiency = strong.efficiency(last), weak.efficiency(weak.points[-1])
    assert efficiency is not None
    assert weak_efficiency is not None
    assert efficiency < weak_efficiency
    with pytest.raises(ParallelError, match="no layout"):
        scaling_curves(planner("llama3-8b", 37, global_batch_size=1), (37,))
