"""The best model is found without pricing all."""

import math

import pytest

from benchmarks.decisions.best_first import TOLERANCE, best_first
from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.decision import decide
from benchmarks.decisions.question import Question
from benchmarks.decisions.shortlist import shortlist
from benchmarks.laws.registry import LAWS
from tests.benchmarks.decisions.fakes import FakePricer, question

FLOPS = 3e21


def listed(asked: Question, pricer: FakePricer) -> list[Candidate]:
    return shortlist(asked.fitted, pricer, lambda _: True, 4096, 16, asked.loss)


@pytest.mark.parametrize("law", ["hoffmann-2022", "ludziejewski-2025", "abnar-2025"])
def test_at_a_constant_cost_gpu_hours_choose_what_flops_choose(law: str) -> None:
    asked = question(law, flops=0.4 * FLOPS)
    pricer = FakePricer(FLOPS, asked.active, lambda _: 0.4)
    found = best_first(listed(asked, pricer), pricer, asked.loss).best
    by_flops = decide(asked).best
    assert found is not None
    assert found.loss == pytest.approx(by_flops.loss, abs=TOLERANCE)
    assert found.candidate.proportions == by_flops.candidate.proportions


def test_the_ladder_s_optimum_is_near_chinchilla_s_closed_form() -> None:
    asked = question("hoffmann-2022", flops=FLOPS)
    best = decide(asked).best
    v = LAWS["chinchilla"].published[1].values
    total = v["alpha"] + v["beta"]
    size = (v["alpha"] * v["A"] / (v["beta"] * v["B"])) ** (1 / total)
    size *= (FLOPS / 6) ** (v["beta"] / total)
    tokens = FLOPS / (6 * size)
    least = v["E"] + v["A"] / size ** v["alpha"] + v["B"] / tokens ** v["beta"]
    assert abs(math.log(best.candidate.costs.total_parameters / size)) < math.log(1.3)
    assert least <= best.loss < least + 1e-3


def uneven(one: Candidate) -> float:
    """Reach less with more experts, and with sizes far from 2e9."""
    off = abs(math.log(one.costs.active_parameters / 2e9))
    return 0.5 / (1 + 0.3 * off) / one.proportions.expansion**0.2


def test_models_that_were_not_priced_are_not_better() -> None:
    asked = question("ludziejewski-2025", flops=FLOPS)
    pricer = FakePricer(FLOPS, asked.active, uneven)
    candidates = listed(asked, pricer)
    outcome = best_first(candidates, pricer, asked.loss)
    everything = [asked.loss(one, pricer.optimistic_tokens(one, uneven(one))) for one in candidates]
    assert outcome.best is not None
    assert outcome.best.loss <= min(everything) + TOLERANCE
    assert outcome.gain_left <= TOLERANCE
    assert len(outcome.priced) < len(candidates) / 3


def test_what_is_larger_than_what_does_not_fit_is_not_tried() -> None:
    asked = question("hoffmann-2022", flops=1e24)
    pricer = FakePricer(1e24, asked.active, lambda _: 0.4, largest=5e9)
    outcome = best_first(listed(asked, pricer), pricer, asked.loss)
    refused = [
        one.costs.total_parameters for one in pricer.asked if one.costs.total_parameters > 5e9
    ]
    assert outcome.best is not None
    assert outcome.best.candidate.costs.total_parameters <= 5e9
    assert refused == sorted(refused, reverse=True)


def test_the_search_ends_and_says_what_it_left() -> None:
    asked = question("ludziejewski-2025", flops=FLOPS)
    pricer = FakePricer(FLOPS, asked.active, uneven)
    outcome = best_first(listed(asked, pricer), pricer, asked.loss, most_priced=2)
    assert len(outcome.priced) == 2
    assert outcome.gain_left > TOLERANCE
