"""The best model is found without pricing all."""

import math
from dataclasses import replace

import pytest

from benchmarks.decisions.best_first import TOLERANCE, best_first
from benchmarks.decisions.candidates import Candidate
from benchmarks.decisions.decision import decide
from benchmarks.decisions.question import Question
from benchmarks.decisions.shortlist import Shortlist
from benchmarks.laws.registry import LAWS
from tests.benchmarks.decisions.fakes import FakePricer, question

FLOPS = 3e21


def listed(asked: Question, pricer: FakePricer) -> list[Candidate]:
    return near(asked, pricer).models


def near(asked: Question, pricer: FakePricer) -> Shortlist:
    return Shortlist(asked.fitted, pricer, lambda _: True, 4096, 16, asked.loss)


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


def unlucky(one: Candidate) -> float:
    """Reach little, but for one expansion and width: what no other model tells."""
    is_lucky = one.proportions.expansion == 8 and one.model.hidden_size == 2048
    return 0.45 if is_lucky else 0.2


def test_a_model_that_reaches_more_than_all_of_its_proportions_is_found() -> None:
    asked = question("ludziejewski-2025", flops=FLOPS)
    pricer = FakePricer(FLOPS, asked.active, unlucky)
    candidates = listed(asked, pricer)
    outcome = best_first(candidates, pricer, asked.loss)
    everything = [
        asked.loss(one, pricer.optimistic_tokens(one, unlucky(one))) for one in candidates
    ]
    assert outcome.best is not None
    assert outcome.best.loss - outcome.gain_left <= min(everything)
    assert outcome.gain_left <= TOLERANCE
    assert unlucky(outcome.best.candidate) == 0.45


def small(one: Candidate) -> float:
    """Reach ever less with size."""
    return min(1.0, (5e7 / one.costs.active_parameters) ** 0.8)


def test_models_beyond_the_shortlist_come_in_question_where_its_ends_do() -> None:
    asked = question("hoffmann-2022", flops=FLOPS)
    pricer = FakePricer(FLOPS, asked.active, small)
    shortlist = near(asked, pricer)
    listed_first = shortlist.models
    outcome = best_first(listed_first, pricer, asked.loss, beside=shortlist.beside)
    assert outcome.best is not None
    assert outcome.best.candidate not in listed_first
    assert outcome.candidates == len(shortlist.models) > len(listed_first)


def test_what_does_not_fit_hides_nothing_larger() -> None:
    """Heads, experts and layers that cards can share decide, not size alone."""
    asked = question("hoffmann-2022", flops=FLOPS)
    pricer = FakePricer(FLOPS, asked.active, lambda _: 0.4)
    candidates = listed(asked, pricer)
    best = best_first(candidates, pricer, asked.loss).best
    assert best is not None
    refused = replace(pricer, largest=best.candidate.costs.total_parameters - 1, asked=[])
    outcome = best_first(candidates, refused, asked.loss)
    assert len(refused.asked) > len(outcome.priced)
    assert outcome.best is not None


def test_the_search_ends_and_says_what_it_left() -> None:
    asked = question("ludziejewski-2025", flops=FLOPS)
    pricer = FakePricer(FLOPS, asked.active, uneven)
    outcome = best_first(listed(asked, pricer), pricer, asked.loss, most_priced=2)
    assert len(outcome.priced) == 2
    assert outcome.gain_left > TOLERANCE
