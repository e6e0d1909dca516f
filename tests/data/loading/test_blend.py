"""Blending: integer shares with an exact bound, stable under extension and change."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.loading.blend import PERIOD, Blend, apportion, interleave

WEIGHTS = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.1, 50), min_size=1, max_size=8)
SHARES = st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(any)


@given(WEIGHTS)
def test_shares_are_off_by_less_than_one_part_of_the_period(weights: dict[str, float]) -> None:
    shares = apportion(weights)
    period, total = sum(shares.values()), sum(map(Fraction, weights.values()))
    assert PERIOD % period == 0
    for name, weight in weights.items():
        error = abs(Fraction(shares[name], period) - Fraction(weight) / total)
        assert error < Fraction(1, PERIOD) + Fraction(1, 10**12)


def test_weights_with_four_decimals_are_met_exactly() -> None:
    assert apportion({"a": 0.7, "b": 0.2999, "c": 0.0001}) == {"a": 7000, "b": 2999, "c": 1}
    assert apportion({"a": 2, "b": 1, "c": 1}) == {"a": 2, "b": 1, "c": 1}
    assert apportion({"a": 3.0, "b": 0.0}) == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 0.0}, "at least one must be positive"),
        ({"a": 1.0, "b": float("inf")}, "all finite"),
        ({"a": 1.0, "b": 1e-6}, r"weight of source 'b' is below 1/10000"),
    ],
)
def test_weights_that_cannot_be_met_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        apportion(weights)


@given(SHARES)
def test_every_prefix_is_within_tijdemans_bound(shares: list[int]) -> None:
    """After any number of samples: less than 1 - 1 / (2 K - 2) from the exact share, K sources."""
    order, period = interleave(shares), sum(shares)
    assert np.array_equal(np.bincount(order, minlength=len(shares)), shares)
    active = sum(share > 0 for share in shares)
    bound = 1 - Fraction(1, 2 * active - 2) if active > 1 else Fraction(0)
    counts = [0] * len(shares)
    for place, source in enumerate(order.tolist(), 1):
        counts[source] += 1
        for share, count in zip(shares, counts, strict=True):
            assert abs(Fraction(share * place, period) - count) <= bound


def test_frozen_order() -> None:
    """A run's blend must never change between releases: these values stay for ever."""
    assert interleave([3, 2, 1]).tolist() == [0, 1, 0, 2, 1, 0]
    assert "".join(map(str, interleave([5, 3, 2]))) == "0102010210"


PHASES = st.lists(
    st.tuples(st.integers(1, 300), WEIGHTS), min_size=0, max_size=3, unique_by=lambda p: p[0]
)


@settings(max_examples=25)
@given(WEIGHTS, PHASES, st.integers(0, 700))
def test_ordinals_of_each_source_rise_by_one_through_every_change(
    first: dict[str, float], changes: list[tuple[int, dict[str, float]]], end: int
) -> None:
    names = list("abcdefgh")
    phases = [(0, first), *sorted(changes, key=lambda phase: phase[0])]
    blend = Blend(names, phases)
    sources, ordinals = blend.locate(np.arange(700))
    for source in range(len(names)):
        mine = ordinals[sources == source]
        assert np.array_equal(mine, np.arange(mine.size))
    counts = np.bincount(sources[:end], minlength=len(names))
    assert blend.counts(end).tolist() == counts.tolist()
    inside = [phase for phase in phases if phase[0] < max(end, 1)]
    known = Blend(names, inside)  # later changes decide nothing before them
    for known_part, part in zip(known.locate(np.arange(700)), (sources, ordinals), strict=True):
        assert np.array_equal(known_part[:end], part[:end])
    assert blend.phases(end) == known.phases(end)


@settings(max_examples=25)
@given(WEIGHTS, st.lists(st.integers(0, 10**15), min_size=1, max_size=20))
def test_any_sample_is_found_alone(weights: dict[str, float], positions: list[int]) -> None:
    blend = Blend(list("abcdefgh"), [(0, weights)])
    together = blend.locate(np.array(positions))
    alone = [blend.locate(np.array([position])) for position in positions]
    for part in (0, 1):
        assert together[part].tolist() == [one[part][0] for one in alone]


def test_long_run_shares_are_exact_at_every_period() -> None:
    blend = Blend(["a", "b"], [(0, {"a": 0.7, "b": 0.3})])
    assert blend.counts(10**12).tolist() == [7 * 10**11, 3 * 10**11]


def test_unknown_sources_are_named() -> None:
    with pytest.raises(DataError, match="no source 'c'; there are a, b"):
        Blend(["a", "b"], [(0, {"a": 1, "c": 1})])
