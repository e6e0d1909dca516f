"""The warm-up's criterion: when a load is steady, and what is said where it is not."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.bench.instruments import HELD_RATE
from benchmarks.bench.natural.warm_up import (
    TOLERANCE,
    WINDOW_STEPS,
    is_steady,
    load_changes,
    warm_up,
)


def test_two_windows_are_compared_layer_by_layer() -> None:
    before = [[1.0, 3.0], [3.0, 1.0]] * (WINDOW_STEPS // 2)
    after = [[1.1, 4.0], [3.1, 4.0]] * (WINDOW_STEPS // 2)
    assert load_changes([[9.0, 9.0], *before, *after]) == pytest.approx([0.05, 1.0])
    assert load_changes([*before, *after][1:]) is None


@pytest.mark.parametrize(("change", "steady"), [(0.9, True), (-0.9, True), (1.1, False)])
def test_one_layer_that_moves_is_enough(change: float, steady: bool) -> None:
    moved = 2.0 * (1 + change * TOLERANCE)
    loads = [[2.0, 2.0]] * WINDOW_STEPS + [[2.0, moved]] * WINDOW_STEPS
    assert is_steady(loads) is steady


class _Subject:
    """A trainer of one layer whose load is a function of the step."""

    def __init__(self, load: Callable[[int], float], rejected_at: int | None = None) -> None:
        self.experiment = SimpleNamespace(model=SimpleNamespace(hidden_size=128))
        self.engine = SimpleNamespace(is_main=False)
        self.rates: list[float] = []
        self._load, self._rejected_at = load, rejected_at
        self.steps = 0

    def set_learning_rate(self, rate: float) -> None:
        self.rates.append(rate)

    def step(self) -> float:
        self.steps += 1
        self.last_loads = [self._load(self.steps)]
        is_rejected = self.steps == self._rejected_at
        self.last_result = SimpleNamespace(
            loss=math.inf if is_rejected else 9.0 / self.steps,
            rejection="infinite" if is_rejected else None,
        )
        return 0.0


def warmed(subject: Any, most_steps: int = 1000) -> dict[str, Any]:
    return warm_up(subject, most_steps).source("text")


def test_a_load_that_falls_is_waited_for() -> None:
    subject = _Subject(lambda step: 1.5 + 2 * math.exp(-step / 80))
    found = warmed(subject)
    assert found["steady"] and found["steps"] == subject.steps
    assert 2 * WINDOW_STEPS < found["steps"] < 1000
    assert abs(found["changes"][0]) <= TOLERANCE
    # One window earlier it was not steady.
    assert abs(found["busiest_over_even"][0] - 1.5) < 1
    # 3e-3 at a width of 128, after it has risen; then weights are held.
    assert subject.rates[0] < subject.rates[1] < subject.rates[50] == pytest.approx(3e-3)
    assert subject.rates[-1] == HELD_RATE


def test_a_load_that_is_never_steady_is_said_to_be_none() -> None:
    found = warmed(_Subject(lambda step: 1 + (step // WINDOW_STEPS) % 2), 3 * WINDOW_STEPS + 1)
    assert (found["steady"], found["steps"]) == (False, 3 * WINDOW_STEPS + 1)
    assert abs(found["changes"][0]) > TOLERANCE


def test_too_few_steps_are_not_steady() -> None:
    found = warmed(_Subject(lambda step: 1.0), 2 * WINDOW_STEPS - 1)
    assert (found["steady"], found["changes"]) == (False, None)


def test_a_rejected_step_ends_it_unsteady() -> None:
    at = 2 * WINDOW_STEPS
    found = warmed(_Subject(lambda step: 1.0, rejected_at=at))
    assert (found["steady"], found["steps"], found["last_loss"]) == (False, at, None)
