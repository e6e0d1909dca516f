"""What docs/evidence/transfer.md says of learning rates and width, from its runs."""

import csv
from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks.sweeps.transfer import Anchor, Transfer
from tests.support.paths import ROOT

WIDTHS = (32, 64, 128, 256)
Losses = Mapping[float, float]


@pytest.fixture(scope="module")
def losses() -> dict[int, Losses]:
    """Mean loss of both seeds by width and learning rate."""
    found: dict[int, dict[float, list[float]]] = {width: {} for width in WIDTHS}
    with (ROOT / "docs/evidence/width_transfer.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            by_rate = found[int(row["hidden_size"])]
            by_rate.setdefault(float(row["learning_rate"]), []).append(float(row["loss"]))
    assert all(len(seeds) == 2 for by_rate in found.values() for seeds in by_rate.values())
    return {
        width: {rate: float(np.mean(seeds)) for rate, seeds in by_rate.items()}
        for width, by_rate in found.items()
    }


def best_rate(losses: Losses) -> float:
    """Return the rate of the parabola through the best mean loss and its two neighbours."""
    rates = sorted(losses)
    best = rates.index(min(rates, key=lambda rate: losses[rate]))
    assert 0 < best < len(rates) - 1
    near = rates[best - 1 : best + 2]
    square, slope, _ = np.polyfit(np.log2(near), [losses[rate] for rate in near], 2)
    return float(2 ** (-slope / (2 * square)))


def loss_at(losses: Losses, rate: float) -> float:
    """Return the loss at a rate, on the lines between those that ran."""
    rates = sorted(losses)
    return float(np.interp(np.log(rate), np.log(rates), [losses[one] for one in rates]))


def test_the_best_rate_goes_as_one_over_width(losses: dict[int, Losses]) -> None:
    """Over a factor of 8, within 18 % of the rule from the smallest; a step of the grid is 2."""
    best = {width: best_rate(losses[width]) for width in WIDTHS}
    anchor = Anchor(learning_rate=best[32], hidden_size=32)
    rule = Transfer(learning_rate="width", anchor=anchor)
    for width in WIDTHS:
        rate = rule.learning_rate_of(
            non_embedding_parameters=1, tokens=1, flops=1, hidden_size=width
        )
        assert rate is not None
        assert best[width] == pytest.approx(rate, rel=0.18)
    slope = np.polyfit(np.log(WIDTHS), np.log([best[width] for width in WIDTHS]), 1)[0]
    assert slope == pytest.approx(-0.96, abs=0.01)


def test_the_rule_costs_little_where_an_unchanged_rate_costs_a_nat(
    losses: dict[int, Losses],
) -> None:
    least = min(losses[256].values())
    rate = best_rate(losses[32])
    assert loss_at(losses[256], rate / 8) - least == pytest.approx(0.035, abs=0.001)
    assert loss_at(losses[256], rate) - least == pytest.approx(0.86, abs=0.01)
