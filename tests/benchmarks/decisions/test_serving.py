"""Served tokens and served models."""

import pytest

from benchmarks.decisions.decision import decide
from benchmarks.decisions.limits import Limits, Serving
from benchmarks.decisions.question import Question
from benchmarks.laws.fitted_law import find_fitted
from benchmarks.laws.predict import predict
from benchmarks.laws.registry import LAWS
from moe.config.experiment import load_model
from moe.cost.ledger import ledger

HOFFMANN = LAWS["chinchilla"].published[1].values


def test_serving_moves_the_optimum_as_calculus_says() -> None:
    """Of L(N, D(N)), D = C/(6N) - T/3: alpha A N^-alpha = beta B D^-beta (1 + T/(3D))."""
    v, served = HOFFMANN, 2e12
    found = predict(find_fitted("hoffmann-2022"), 8.3e22, served)
    size, tokens = found["best"]["parameters"], found["best"]["tokens"]
    assert 6 * size * tokens + 2 * size * served == pytest.approx(8.3e22)
    left = v["alpha"] * v["A"] * size ** -v["alpha"]
    right = v["beta"] * v["B"] * tokens ** -v["beta"] * (1 + served / (3 * tokens))
    assert left == pytest.approx(right, rel=2e-3)
    cost = found["cost"]
    assert cost["training_flops"] + cost["serving_flops"] == pytest.approx(8.3e22)


def test_sardana_s_example() -> None:
    """13B at Chinchilla's optimum and 2e12 tokens served: 7B for longer, 17% fewer FLOPs.

    The paper's coefficients have a digit more than the printed ones here.
    """
    law = find_fitted("hoffmann-2022")
    optimal = min(
        (predict(law, flops) for flops in (3e22, 3.5e22, 4e22, 4.5e22, 5e22, 6e22)),
        key=lambda one: abs(one["best"]["parameters"] - 13e9),
    )
    size = optimal["best"]["parameters"]
    life = optimal["cost"]["training_flops"] + 2 * size * 2e12
    saved = predict(law, 0.83 * life, 2e12)
    assert saved["loss"] == pytest.approx(optimal["loss"], abs=5e-3)
    assert saved["best"]["parameters"] / size == pytest.approx(7 / 13, rel=0.15)


def test_more_served_tokens_choose_smaller_models() -> None:
    sizes = [
        decide(
            Question(
                fitted=find_fitted("ludziejewski-2025"),
                limits=Limits(flops=1e22, serving=Serving(tokens=tokens)),
            )
        ).best
        for tokens in (0.0, 1e11, 1e12)
    ]
    active = [one.candidate.costs.active_parameters for one in sizes]
    assert active == sorted(active, reverse=True)
    assert active[0] > 1.5 * active[-1]
    assert sizes[0].loss < sizes[1].loss < sizes[2].loss


def test_memory_of_a_served_model_by_hand() -> None:
    """Mixtral: 46.7e9 parameters; 2 x 32 layers x 8 heads x 128 numbers a token of the context."""
    costs = ledger(load_model("mixtral-8x7b"), 4096)
    serving = Serving(weight_bits=8, context=1000, batch=3)
    cache = 2 * 32 * 8 * 128 * 2 * 1000 * 3
    assert serving.memory_bytes(costs) == costs.total_parameters + cache
