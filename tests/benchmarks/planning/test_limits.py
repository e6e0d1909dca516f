"""What holds a layout back: shares that an even load of experts would save among them."""

import re

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.planning.answer import answer
from tests.benchmarks.planning.jobs import planner

LAYOUT = "tp=1,pp=4,ep=8,mbs=1"
NAME = "uneven load of experts"


def share_of(limits: tuple[str, ...]) -> float:
    (text,) = [one for one in limits if one.startswith(NAME)]
    found = re.fullmatch(rf"{NAME} (\d+)%", text)
    assert found is not None
    return int(found[1]) / 100


@pytest.mark.parametrize("uneven", [{"imbalance": 2.0}, {"routing": "natural"}])
def test_what_an_even_load_would_save_is_a_limit(uneven: dict[str, object]) -> None:
    even = answer(planner(), LAYOUT, 1).best
    slow = answer(planner(**uneven), LAYOUT, 1).best
    saved = 1 - even.step_seconds / slow.step_seconds
    assert saved > 0.05
    assert share_of(slow.limits) == pytest.approx(saved, abs=0.005)
    assert not any(NAME in text for text in even.limits)


def test_a_rank_with_all_experts_has_no_uneven_load() -> None:
    even, slow = (answer(planner(imbalance=i), "tp=1,pp=4,ep=1,mbs=1", 1).best for i in (1.0, 1e6))
    assert slow.step_seconds == even.step_seconds
    assert not any(NAME in text for text in slow.limits)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5, 1e7])
def test_an_imbalance_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(BenchmarkError, match=f"--imbalance {re.escape(f'{value:g}')}: no number"):
        planner(imbalance=value)


def test_other_limits_are_those_that_an_even_load_would_leave() -> None:
    even = answer(planner(), LAYOUT, 1).best
    slow = answer(planner(imbalance=1.5), LAYOUT, 1).best
    kept = next(text for text in even.limits if text.startswith("expert exchange"))
    fewer = next(text for text in slow.limits if text.startswith("expert exchange"))
    ratio = even.step_seconds / slow.step_seconds
    assert percent(fewer) == pytest.approx(percent(kept) * ratio, abs=1)


def percent(text: str) -> int:
    return int(text.rsplit(" ", 1)[1].rstrip("%"))


def test_a_dense_model_has_no_experts_to_load() -> None:
    dense = answer(planner("llama3-8b", 16, routing="natural"), "tp=2,pp=2", 1).best
    assert not any(NAME in text for text in dense.limits)
