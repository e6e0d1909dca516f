"""Sparse runs beside dense ones."""

import pytest

from benchmarks.study.pairs import pairs_of


def row(
    experts: int, width: int, seed: int, loss: float, speed: float | None
) -> dict[str, float | None]:
    return {"experts": experts, "hidden_size": width, "asked_held": 1e12, "seed": seed,
            "loss": loss, "tokens_per_s": speed}  # fmt: skip


def test_runs_are_paired_by_width_budget_and_seed() -> None:
    rows = [
        row(1, 16, 0, 4.0, 100.0), row(1, 32, 0, 3.0, 50.0), row(1, 32, 1, 3.1, None),
        row(16, 16, 0, 3.8, 80.0), row(16, 32, 0, 2.9, 25.0), row(16, 32, 1, 3.2, 1.0),
        row(16, 64, 0, 2.0, 1.0),
    ]  # fmt: skip
    (one,) = pairs_of(rows)
    assert (one.experts, one.count, one.lower) == (16, 3, 2)
    # The two seeds of width 32 are one cell, of gap 0.
    assert one.cells == 2
    assert one.mean_gap == pytest.approx((0.2 + 0.0) / 2)
    assert one.gap_half_width == pytest.approx(12.706 * 0.2 / 2**0.5 / 2**0.5, rel=1e-3)
    assert (one.median_time, one.least_time, one.greatest_time) == (1.625, 1.25, 2.0)


def test_one_pair_has_no_interval_and_unmeasured_times_are_null() -> None:
    (one,) = pairs_of([row(1, 16, 0, 4.0, None), row(4, 16, 0, 3.5, 1.0)])
    assert (one.mean_gap, one.gap_half_width, one.median_time) == (0.5, None, None)
