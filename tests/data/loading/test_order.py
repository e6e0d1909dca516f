import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.loading.order import permuted, shuffled

BORDERS = [1, 2, 3, *(2**k + d for k in range(2, 19) for d in (-1, 0, 1)), 65_537, 99_991, 262_145]


@pytest.mark.parametrize("num_samples", BORDERS)
def test_every_sample_once_at_borders(num_samples: int) -> None:
    order = permuted(np.arange(num_samples), num_samples, seed=1)
    assert np.array_equal(np.sort(order), np.arange(num_samples))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50_000), st.integers(0, 2**63), st.integers(0, 10**6))
def test_every_sample_once(num_samples: int, seed: int, epoch: int) -> None:
    order = permuted(np.arange(num_samples), num_samples, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(num_samples))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2**62 - 1), st.integers(0, 100), st.data())
def test_huge_domains_stay_in_range_and_injective(n: int, seed: int, data: st.DataObject) -> None:
    picks = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=50))
    order = permuted(np.array(sorted(picks), dtype=np.int64), n, seed)
    assert len(set(order.tolist())) == len(picks)
    assert order.min() >= 0 and order.max() < n


def test_frozen_values() -> None:
    """A run's order must never change between releases: these values stay for ever."""
    assert permuted(np.arange(8), 10, seed=0).tolist() == GOLDEN_10
    assert permuted(np.arange(4), 10**12, seed=7, epoch=3).tolist() == GOLDEN_BIG
    for (num_samples, seed, epoch), expected in GOLDEN.items():
        assert permuted(np.arange(3), num_samples, seed, epoch).tolist() == expected


GOLDEN = {
    (2**16 + 1, 1, 0): [31873, 29943, 59625],
    (2**32 + 1, 5, 9): [3340341530, 2614291881, 3432036194],
    (2**62 - 1, 2**40, 3): [4602708923180916115, 897120859578440981, 3584959090980305769],
}
GOLDEN_10 = [3, 6, 5, 8, 9, 7, 2, 4]
GOLDEN_BIG = [90559411083, 12256964556, 512250167102, 442879862230]


def test_small_orders_are_all_met() -> None:
    for num_samples in (2, 3, 4):
        found = {tuple(permuted(np.arange(num_samples), num_samples, seed)) for seed in range(999)}
        assert len(found) == math.factorial(num_samples)


def test_positions_of_an_epoch_are_uniform() -> None:
    """Chi-square over 4,000 seeds: each sample equally often at each place of a tiny order."""
    counts = np.zeros((7, 7))
    for seed in range(4_000):
        counts[np.arange(7), permuted(np.arange(7), 7, seed)] += 1
    expected = 4_000 / 7
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 67.0  # 36 degrees of freedom, p = 0.001


def test_neighbours_are_uncorrelated() -> None:
    order = permuted(np.arange(200_000), 200_000, seed=5).astype(float)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(order, np.arange(order.size))[0, 1]) < 0.01


def test_epochs_differ_and_each_is_whole() -> None:
    stream = shuffled(np.arange(3 * 101), 101, seed=2).reshape(3, 101)
    assert all(np.array_equal(np.sort(epoch), np.arange(101)) for epoch in stream)
    assert not np.array_equal(stream[0], stream[1])
    assert not np.array_equal(stream[1], stream[2])


def test_slices_equal_the_whole() -> None:
    whole = shuffled(np.arange(5_000), 1_234, seed=3)
    pieces = [
        shuffled(np.arange(i, min(i + 77, 5_000)), 1_234, seed=3) for i in range(0, 5_000, 77)
    ]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_seeds_give_different_orders() -> None:
    first, second = (permuted(np.arange(1_000), 1_000, seed) for seed in (0, 1))
    assert np.mean(first == second) < 0.01


@pytest.mark.parametrize("num_samples", [0, -1, 2**62])
def test_refuses_sizes_outside_the_domain(num_samples: int) -> None:
    with pytest.raises(ValueError, match="num_samples"):
        permuted(np.arange(1), num_samples, seed=0)
