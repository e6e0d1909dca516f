"""Measures of routing maps, worked by hand and against chance."""

import math

import numpy as np
import pytest

from moe.routing.specialization import affinity, source_load, specialization


def test_specialization_by_hand() -> None:
    assert specialization([[5, 5], [50, 50]]) == pytest.approx(0)
    assert specialization([[5, 0, 0], [0, 30, 30]]) == pytest.approx(1)
    # Half of one source's choices tell it: I = 1/4 ln 2 + 3/4 ln ..., worked out by hand.
    expected = 0.5 * (0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)) + 0.5 * math.log(1 / 0.75)
    assert specialization([[5, 5], [0, 8]]) == pytest.approx(expected / math.log(2))
    assert specialization([[5, 5], [0, 0]]) is None
    assert source_load([[6, 2], [0, 0]]) == [[1.5, 0.5], [0, 0]]


def test_affinity_of_chance_is_one() -> None:
    chance = np.random.default_rng(0)
    for top_k in (2, 3):
        coactivation = np.zeros((6, 6))
        for _ in range(20_000):
            chosen = chance.choice(6, top_k, replace=False)
            coactivation[np.ix_(chosen, chosen)] += 1
        assert (
            np.abs(np.array(affinity(coactivation.tolist(), top_k)) - 1).max() < 0.15
        )  # five deviations of a count
    bound = affinity([[9, 9, 0, 0], [9, 9, 0, 0], [0, 0, 9, 9], [0, 0, 9, 9]], 2)
    assert bound[0] == [1.0, pytest.approx(3.0), 0.0, 0.0]
