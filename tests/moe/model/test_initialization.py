"""Initial weights: their standard deviation by role, and their seed."""

from typing import Any

import numpy as np
import pytest

from moe.config.model import ModelConfig
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision
from tests.support.architecture_options import CONFIGS
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import FullTensors, assemble, shards

pytestmark = pytest.mark.engine
SIZES = {"num_layers": 8, "hidden_size": 64, "init_std": 0.03}
MODEL = ModelConfig.model_validate(
    CONFIGS["linear_bias"].model_dump() | SIZES | {"attention_sinks": True}
)
OUTPUTS = ("linear_proj.weight", "linear_fc2.weight")


def _initial(model: ModelConfig, seeds: list[int]) -> list[Any]:
    from moe.model.build import build_model
    from parallel.engine.start import start_engine

    layout = Layout(device="cpu")
    start_engine(layout, seed=0)
    holder = type("Holder", (), {})
    models = []
    for seed in seeds:
        holder.module = build_model(model, layout, Precision(), seed=seed)[0]
        models.append(shards([holder]))
    return models


@pytest.fixture(scope="module")
def drawn() -> list[FullTensors]:
    return [assemble([one]) for one in run_ranks(1, _initial, MODEL, [1, 1, 2])[0]]


def test_standard_deviation_is_the_configured_one(drawn: list[FullTensors]) -> None:
    for key, values in drawn[0].items():
        if "norm" in key:
            assert (values == 1).all(), key
        elif key.endswith("bias"):
            assert (values == 0).all(), key
        else:
            std = 0.03 / np.sqrt(16) if key.endswith(OUTPUTS) else 0.03
            tolerance = 5 / np.sqrt(2 * values.size)
            assert values.std() == pytest.approx(std, rel=tolerance), key
            assert abs(values.mean()) < 5 * std / np.sqrt(values.size), key


def test_no_two_matrices_or_experts_are_equal(drawn: list[FullTensors]) -> None:
    experts = drawn[0]["decoder.layers.1.mlp.experts.experts.linear_fc1.weight"]
    assert len({expert.tobytes() for expert in experts}) == len(experts)
    firsts = [values.flat[0] for key, values in drawn[0].items() if key.endswith("qkv.weight")]
    assert len(set(firsts)) == 8


def test_weights_depend_on_the_seed(drawn: list[FullTensors]) -> None:
    one, again, other = drawn
    assert all(np.array_equal(one[key], again[key]) for key in one)
    name = "embedding.word_embeddings.weight"
    assert not np.array_equal(one[name], other[name])
