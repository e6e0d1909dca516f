"""Checkpoints of format 1, with the names of kernel set `torch`, hold the same under today's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.checkpoint.first_format import HalfShard, with_todays_names
from moe.checkpoint.index_format import TensorShard
from tests.support.checkpoint_content import checkpoint_content
from tests.support.layout_equivalence import FullTensors
from tests.support.trained_runs import command

OLD_RUN = Path(__file__).parent / "format_1"
"""Written by commit cc41103: two layers, the first dense, on two ranks (tp = etp = 2)."""
NORM = "self_attention.linear_qkv.layer_norm_weight"
RENAMED = {
    "0.input_layernorm.weight": f"0.{NORM}",
    "0.pre_mlp_layernorm.weight": "0.mlp.linear_fc1.layer_norm_weight",
    "1.input_layernorm.weight": f"1.{NORM}",
    "1.mlp.experts.down": "1.mlp.experts.experts.linear_fc2.weight",
    "1.mlp.experts.gate_up": "1.mlp.experts.experts.linear_fc1.weight",
}


def _todays(old: FullTensors) -> FullTensors:
    found: FullTensors = {}
    for key, values in old.items():
        name = key.rpartition(".layers.")[2]
        stacked = values.reshape(len(values), -1, *values.shape[3:]) if "gate_up" in key else values
        found[key.removesuffix(name) + RENAMED.get(name, name)] = stacked
    return found


@pytest.mark.engine
def test_weights_and_optimizer_are_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, fault = command(
        "convert", "reshard", str(OLD_RUN), "-o", str(out), "--ranks", "1",
        "--set", 'parallel.device="cpu"',
    )  # fmt: skip
    assert code == 0, fault
    path = "checkpoints/step-00000002"
    expected = _todays(checkpoint_content(OLD_RUN / path))
    found = checkpoint_content(out / path)
    assert len(expected) == 60 and expected.keys() == found.keys()
    for key, values in expected.items():
        assert np.array_equal(values, found[key]), key


def _shard(key: str, *shape: int) -> TensorShard:
    zeros = (0,) * len(shape)
    return TensorShard(
        key=key, global_shape=shape, offset=zeros, shape=shape, file="rank-0.safetensors", name="0"
    )


@pytest.mark.parametrize("before", ["", "optimizer.state.exp_avg."])
@pytest.mark.parametrize(
    ("layer", "others", "old", "new"),
    [
        ("decoder.layers.11.", ["mlp.router.weight"], "pre_mlp_layernorm.weight", None),
        ("decoder.layers.3.", ["self_attention.linear_kv_up_proj.weight"],
         "input_layernorm.weight", None),
        ("decoder.layers.3.", ["self_attention.linear_kv_up_proj.weight"],
         "self_attention.q_layernorm.weight",
         "self_attention.linear_q_up_proj.layer_norm_weight"),
        ("mtp.layers.0.transformer_layer.", ["self_attention.linear_kv_up_proj.weight"],
         "self_attention.kv_layernorm.weight",
         "self_attention.linear_kv_up_proj.layer_norm_weight"),
        ("decoder.layers.3.", [], "self_attention.q_layernorm.weight", None),
        ("mtp.layers.0.", [], "final_layernorm.weight", None),
        ("decoder.layers.0.", [], "mlp.experts.down_bias",
         "mlp.experts.experts.linear_fc2.bias"),
    ],
)  # fmt: skip
def test_names(before: str, layer: str, others: list[str], old: str, new: str | None) -> None:
    weights = [_shard(f"{layer}{name}", 2, 2) for name in (*others, old)]
    asked = _shard(f"{before}{layer}{old}", 2, 2)
    *_, found = with_todays_names([*weights, asked])
    assert found == asked.model_copy(update={"key": f"{before}{layer}{new or old}"})


def test_gate_and_up_biases_become_two_shards() -> None:
    stored = TensorShard(
        key="decoder.layers.0.mlp.experts.gate_up_bias",
        global_shape=(4, 2, 6),
        offset=(2, 0, 3),
        shape=(2, 2, 3),
        file="rank-1.safetensors",
        name="7",
    )
    found = with_todays_names([stored])
    assert [(shard.global_shape, shard.offset, shard.shape) for shard in found] == [
        ((4, 12), (2, 3), (2, 3)),
        ((4, 12), (2, 9), (2, 3)),
    ]
    for half, shard in enumerate(found):
        assert isinstance(shard, HalfShard)
        assert shard.stored_shape == stored.shape
        region = shard.stored_region((slice(0, 1), slice(1, 3)))
        assert region == (slice(0, 1), slice(half, half + 1), slice(1, 3))


@pytest.mark.parametrize("shape", [[4], [4, 2], [4, 3, 6], [4, 1 << 47, 6]])
def test_shapes_that_format_1_never_had_are_left(shape: Any) -> None:
    stored = _shard("decoder.layers.0.mlp.experts.gate_up", *shape)
    (found,) = with_todays_names([stored])
    assert found.shape == tuple(shape)
