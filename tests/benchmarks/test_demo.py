"""The demo's two runs take turns, so that a machine's load meets both."""

import pytest

from benchmarks.demo import turns


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (10, [("dense", 10), ("sparse", 10)]),
        (100, [("dense", 50), ("sparse", 100), ("dense", 100)]),
        (300, [("dense", 100), ("sparse", 200), ("dense", 300), ("sparse", 300)]),
    ],
)
def test_turns(steps: int, expected: list[tuple[str, int]]) -> None:
    assert turns(["dense", "sparse"], steps) == expected


def test_a_load_that_grows_meets_both_nearly_alike() -> None:
    """Mean position of each run's steps in the order in which all are trained."""
    done: dict[str, int] = {}
    positions: dict[str, list[int]] = {"dense": [], "sparse": []}
    at = 0
    for name, until in turns(["dense", "sparse"], 300):
        count = until - done.get(name, 0)
        positions[name] += range(at, at + count)
        at, done[name] = at + count, until
    means = [sum(places) / len(places) for places in positions.values()]
    assert abs(means[0] - means[1]) <= 600 / 15  # one after the other: 300
