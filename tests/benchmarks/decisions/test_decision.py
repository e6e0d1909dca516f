"""Decisions by what layouts cost: limits bind, more of them never hurts."""

import pytest

from benchmarks.decisions.candidates import Proportions, candidate
from benchmarks.decisions.decision import Decision, decide
from benchmarks.decisions.dense_wins import dense_wins
from benchmarks.decisions.documents import prediction
from benchmarks.decisions.leverage import leverage
from benchmarks.decisions.limits import Limits, Serving
from benchmarks.decisions.question import Question
from benchmarks.errors import BenchmarkError
from benchmarks.laws.fitted_law import find_fitted
from benchmarks.planning.job import JobOptions
from tests.benchmarks.decisions.fakes import question


def asked(law: str, gpus: int = 8, served: float = 0.0, **limits: float) -> Question:
    assumed = {"price_per_device_hour": 2.0, "carbon_intensity": 100.0}
    return Question(
        fitted=find_fitted(law),
        limits=Limits(**limits, serving=Serving(tokens=served)),  # type: ignore[arg-type]
        options=JobOptions(gpus=gpus, gpu="h100", assumptions=assumed),
    )


@pytest.fixture(scope="module")
def sparse() -> Decision:
    return decide(asked("ludziejewski-2025", gpus=2, gpu_hours=5.0))


@pytest.mark.parametrize("limit", [{"gpu_hours": 5.0}, {"joules": 2e7}])
def test_no_layout_undercuts_the_bounds(limit: dict[str, float]) -> None:
    one = asked("ludziejewski-2025", gpus=2, **limit)
    pricer = one.pricer()
    for expansion in (1, 8):
        for width in (256, 512, 1024):
            found = candidate(one.fitted, Proportions(expansion, 1), width, 4096, 16)
            assert found is not None
            price = pricer.price(found)
            assert price is not None
            bounds = pricer.most_planned_tokens(found), pricer.most_tokens(found)
            assert price.tokens.value <= bounds[0] <= bounds[1]
            assert bounds[0] < 3 * price.tokens.value


def test_a_larger_budget_never_gives_a_larger_loss() -> None:
    losses = [decide(asked("hoffmann-2022", gpu_hours=hours)).best.loss for hours in (1, 10, 100)]
    assert losses == sorted(losses, reverse=True)
    by_flops = [
        decide(question("abnar", flops=10.0**power)).best.loss for power in range(18, 25, 2)
    ]
    assert by_flops == sorted(by_flops, reverse=True)


@pytest.mark.parametrize("name", ["gpu_hours", "joules", "money", "gco2"])
def test_every_limit_of_cards_binds(name: str) -> None:
    first = decide(asked("hoffmann-2022", gpu_hours=50.0)).best
    assert first.price.run is not None
    spent = first.price.run.quantities[name]
    assert spent is not None
    loose = {"gpu_hours": 1e6} if name != "gpu_hours" else {"money": 1e9}
    again = decide(asked("hoffmann-2022", **{name: spent.value}, **loose)).best
    assert again.price.bound_by == name
    assert again.loss == pytest.approx(first.loss, abs=0.02)


def test_data_and_memory_bind() -> None:
    data = decide(asked("hoffmann-2022", gpu_hours=50.0, tokens=1e9))
    assert data.best.price.bound_by == "tokens"
    assert data.best.price.tokens.value == 1e9
    memory = decide(asked("ludziejewski-2025", gpu_hours=5.0, memory_bytes=5e8)).best
    assert Serving().memory_bytes(memory.candidate.costs) <= 5e8
    flops = decide(asked("hoffmann-2022", gpu_hours=1e4, flops=1e20)).best
    assert flops.price.bound_by == "flops"
    assert 6 * flops.candidate.costs.total_parameters * flops.price.tokens.value == (
        pytest.approx(1e20)
    )


def test_serving_takes_its_part_of_gpu_hours() -> None:
    one = decide(asked("hoffmann-2022", gpu_hours=20.0, served=1e11)).best
    free = decide(asked("hoffmann-2022", gpu_hours=20.0)).best
    assert one.candidate.costs.active_parameters < free.candidate.costs.active_parameters
    assert one.price.served_tokens > 0
    run = one.price.run
    assert run is not None
    hours = run.quantities["gpu_hours"]
    assert hours is not None
    per_token = hours.value / one.price.tokens.value
    assert hours.value + per_token * one.price.served_tokens == pytest.approx(20.0)
    serving = 2 * one.candidate.costs.active_parameters * 1e11 / (0.1 * 989.5e12) / 3600
    assert per_token * one.price.served_tokens == pytest.approx(serving, rel=0.02)


def test_memory_alone_takes_a_rule_for_tokens() -> None:
    best = decide(question("ludziejewski-2025", memory_bytes=1e10)).best
    assert best.price.bound_by == "memory_bytes"
    assert best.price.tokens.value == 20 * best.candidate.costs.active_parameters


@pytest.mark.parametrize("served", [0.0, 1e12])
def test_leverage_is_what_equal_losses_cost(served: float) -> None:
    def by_flops(flops: float) -> Decision:
        limits = Limits(flops=flops, serving=Serving(tokens=served))
        return decide(Question(fitted=find_fitted("ludziejewski-2025"), limits=limits))

    found = leverage(by_flops(1e22))
    assert found is not None
    assert found.loss_difference > 0
    assert found.budget_factor is not None
    assert found.budget_factor > 1
    dense = by_flops(1e22 * found.budget_factor).dense.best
    assert dense is not None
    assert dense.loss == pytest.approx(found.sparse.loss, abs=1e-3)


def test_dense_wins_beyond_the_thresholds(sparse: Decision) -> None:
    found = leverage(sparse)
    assert found is not None
    by_dial = {one.dial: one for one in dense_wins(sparse, found)}
    slowness = by_dial["cost_of_sparse_token"].value
    assert slowness is not None
    tokens = found.sparse.price.tokens.value / slowness
    loss = sparse.question.loss(found.sparse.candidate, tokens)
    assert loss == pytest.approx(found.dense.loss, abs=1e-4)
    assert by_dial["memory_bytes"].value is None
    small = decide(asked("ludziejewski-2025", gpus=2, gpu_hours=5.0, memory_bytes=1e8)).best
    assert not small.candidate.proportions.is_dense


def test_dense_wins_above_a_budget_where_memory_binds() -> None:
    decision = decide(question("ludziejewski-2025", flops=1e22, memory_bytes=8e10))
    found = leverage(decision)
    assert found is not None
    by_dial = {one.dial: one for one in dense_wins(decision, found)}
    flops = by_dial["flops"].value
    assert flops is not None
    assert "dense wins above" in by_dial["flops"].text
    above, below = (
        decide(question("ludziejewski-2025", flops=factor * flops, memory_bytes=8e10)).best
        for factor in (1.5, 0.6)
    )
    assert above.candidate.proportions.is_dense
    assert not below.candidate.proportions.is_dense


def test_budgets_that_train_nothing_are_of_no_winner() -> None:
    limits = Limits(flops=1e19, memory_bytes=1e12, serving=Serving(tokens=1e11))
    decision = decide(Question(fitted=find_fitted("ludziejewski-2025"), limits=limits))
    found = leverage(decision)
    assert found is not None
    text = next(one.text for one in dense_wins(decision, found) if one.dial == "flops")
    least = float(text.split("from ")[1].split(" to")[0])
    assert least > 1e18
    below = Limits(flops=least / 1.5, memory_bytes=1e12, serving=Serving(tokens=1e11))
    with pytest.raises(BenchmarkError, match="nothing can be trained"):
        decide(Question(fitted=find_fitted("ludziejewski-2025"), limits=below))


def test_6nd_has_no_more_data() -> None:
    found = prediction(decide(asked("ludziejewski-2025", gpu_hours=50.0, tokens=1e9)))
    assert found["six_n_d"]["best"]["tokens"] <= 1e9


def test_the_document_says_what_was_planned_and_what_6nd_would_choose(sparse: Decision) -> None:
    found = prediction(sparse)
    assert {"best", "loss", "interval", "law", "cost"} <= set(found)
    assert found["interval"] is None
    assert found["cost_interval"][0] < found["loss"] < found["cost_interval"][1]
    assert found["searched"]["planned"] < found["searched"]["candidates"] / 2
    assert found["cost"]["bound_by"] == "gpu_hours"
    assert found["six_n_d"]["loss"] <= found["loss"] + 1e-9
    assert found["dense"]["sizes"]["experts"] == 1
    real = found["six_n_d"]["real_loss"]
    assert real is None or real >= found["loss"] - 2e-3


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"gpu_hours": 1e-9}, "tokens"),
        ({"gpu_hours": 1.0, "memory_bytes": 1.0}, "no model of the ladder fits"),
        ({"joules": float("nan")}, "limit joules nan: give a number"),
        ({"gpu_hours": float("inf")}, "limit gpu-hours inf"),
        ({"money": -1.0}, "limit money -1"),
        ({}, "no limit: say at least one"),
    ],
)
def test_impossible_limits_are_refused(limits: dict[str, float], reason: str) -> None:
    with pytest.raises(BenchmarkError, match=reason):
        decide(asked("ludziejewski-2025", **limits))


def test_limits_of_cards_need_cards() -> None:
    with pytest.raises(BenchmarkError, match="give --gpu and --gpus"):
        question("ludziejewski-2025", gpu_hours=5.0)


def test_a_law_of_leverage_chooses_no_model() -> None:
    with pytest.raises(BenchmarkError, match="does not tell which model to train"):
        decide(question("ling-2025", flops=1e21))


@pytest.mark.parametrize(
    ("gpu", "precision", "bits"),
    [("h100", None, 16), ("h100", "fp8", 8), ("h100", "fp32", 32), ("cpu", None, 32)],
)
def test_bits_are_those_of_the_number_format(gpu: str, precision: str | None, bits: int) -> None:
    options = JobOptions(gpu=gpu, gpus=1, precision=precision)
    one = Question(
        fitted=find_fitted("ludziejewski-2025"), limits=Limits(flops=1e20), options=options
    )
    assert one.bits == bits
