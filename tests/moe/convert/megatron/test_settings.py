"""What a checkpoint says of its model, key by key: taken, refused, or asked for."""

import argparse
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from moe.config.model import ModelConfig
from moe.convert.hugging_face import checkpoint_model
from moe.convert.megatron.arguments import arguments_of
from moe.convert.megatron.from_megatron import from_megatron
from moe.convert.megatron.model_settings import ONLY, model_of
from moe.convert.megatron.settings import MegatronSettings, of_arguments, of_run_config
from moe.convert.megatron.to_megatron import to_megatron
from moe.errors import ConfigError
from tests.support.architecture_options import CONFIGS
from tests.support.random_checkpoints import random_checkpoint, whole_tensors

KINDS = ("deepseek_v3", "sparse", "gpt_oss")
ARGUMENTS = {kind: arguments_of(CONFIGS[kind]) for kind in KINDS}


def model(given: dict[str, Any]) -> ModelConfig:
    return model_of(of_arguments("args", given), 264)


def refused(given: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        model(given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("key", sorted(ONLY))
def test_what_no_model_here_computes_is_refused(key: str) -> None:
    names = {"gated_linear_unit": {"swiglu": False}, "seq_len_interpolation_factor":
             {"rotary_seq_len_interpolation_factor": 2}}  # fmt: skip
    line = refused(ARGUMENTS["sparse"] | names.get(key, {key: "LayerNorm"}))
    assert key in line and ONLY[key][1] in line


DECIDING = (
    "num_layers", "hidden_size", "num_attention_heads", "group_query_attention", "ffn_hidden_size",
    "max_position_embeddings", "untie_embeddings_and_output_weights", "add_bias_linear", "swiglu",
    "init_method_std", "position_embedding_type", "rotary_base", "rotary_percent",
    "num_query_groups", "kv_channels", "moe_router_topk", "moe_aux_loss_coeff",
    "moe_router_load_balancing_type",
)  # fmt: skip


@pytest.mark.parametrize("key", DECIDING)
def test_a_key_that_decides_and_is_missing_is_asked_for(key: str) -> None:
    given = {k: v for k, v in ARGUMENTS["sparse"].items() if k != key}
    if key == "max_position_embeddings":
        del given["seq_length"]
    if key == "group_query_attention":
        assert model(given).num_kv_heads == 2  # the groups say the same
        return
    assert "is missing, and decides what the model is: give the model with --model FILE.toml" in (
        refused(given)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 300}, "vocab_size = 300, but the embedding has 264 rows"),
        ({"moe_layer_freq": [0, 1, 1]}, "moe_layer_freq = [0, 1, 1] cannot be converted"),
        ({"moe_layer_freq": "([0]+[1])"}, "moe_layer_freq = '([0]+[1])': wanted a whole number"),
        ({"window_size": (5, 1)}, "window_size = [5, 1] cannot be converted"),
        ({"use_rope_scaling": True, "rope_scaling_factor": 4.0}, "rope_scaling_factor = 4.0"),
        ({"moe_aux_loss_coeff": [0.1, 0.2]}, "moe_aux_loss_coeff = [0.1, 0.2] cannot be"),
        ({"swiglu": False, "squared_relu": True}, "gated_linear_unit = False"),
        ({"num_query_groups": 3}, "num_heads=4 is not divisible by num_kv_heads=3"),
        ({"num_layers": 10**9}, "num_layers = 1000000000: wanted a number from 1 to 10000"),
        ({"softmax_type": "off-by-one"}, "softmax_type = 'off-by-one' cannot be converted"),
        ({"glu_linear_offset": 1.0}, "glu_linear_offset = 1.0 cannot be converted"),
        ({"position_embedding_type": "mrope"}, "position_embedding_type = 'mrope' cannot"),
        ({"moe_router_load_balancing_type": "a\nb"}, "load_balancing = 'a\\nb'"),
        ({"moe_router_dtype": "a\nb"}, "router_dtype = 'a\\nb'"),
        ({"num_layers": 1 << 99999}, "num_layers = '<a number of 100000 bits>'"),
        ({"layernorm_epsilon": float("nan")}, "layernorm_epsilon = nan: wanted a number"),
    ],
)
def test_values_without_an_equivalent_are_named(changes: dict[str, Any], message: str) -> None:
    assert message in refused(ARGUMENTS["sparse"] | changes)


@pytest.mark.parametrize("odd", [[], [1], {"a": 1}, "a\nb", 1 << 70, float("inf"), object()])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_values_of_every_key(kind: str, odd: Any) -> None:
    for key in ARGUMENTS[kind]:
        try:
            assert isinstance(model(ARGUMENTS[kind] | {key: odd}), ModelConfig)
        except ConfigError as error:
            assert "\n" not in str(error)


def test_arguments_of_older_versions() -> None:
    given = {k: v for k, v in ARGUMENTS["sparse"].items() if k != "layernorm_epsilon"}
    assert model(given | {"norm_epsilon": 1e-3}).norm_epsilon == 1e-3
    assert "layernorm_zero_centered_gamma" in refused(
        {k: v for k, v in given.items() if k != "layernorm_zero_centered_gamma"}
        | {"apply_layernorm_1p": True}
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_any_value_of_any_key_is_a_model_or_one_line(kind: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(ARGUMENTS[kind])))
    given = ARGUMENTS[kind] | {key: data.draw(JSON)}
    try:
        assert isinstance(model(given), ModelConfig)
    except ConfigError as error:
        assert "\n" not in str(error)


def bridge(given: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the `model` of a run_config.yaml that means what arguments mean."""
    found = of_arguments("args", given).values
    keys = {k: v for k, v in found.items() if not k.startswith(("untie", "swiglu", "num_experts"))}
    clamped = keys["activation_func"] == "quick_gelu"
    function = "megatron.core.fusions.fused_bias_geglu.quick_gelu"
    return copy.deepcopy(keys | {
        "_target_": "megatron.bridge.models.deepseek.deepseek_provider.DeepSeekV3ModelProvider",
        "activation_func": {
            "_target_": function if clamped else "torch.nn.functional.silu", "_call_": False,
        },
        "params_dtype": {"_target_": "torch.bfloat16", "_call_": False},
    } | changes)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_megatron_bridge_says_the_same_in_yaml(kind: str, tmp_path: Path) -> None:
    ours = random_checkpoint(tmp_path / "ours", CONFIGS[kind], "BF16")
    to_megatron(ours, tmp_path / "megatron")
    release = tmp_path / "megatron/release"
    (release / "common.pt").unlink()
    config = {"model": bridge(ARGUMENTS[kind]), "checkpoint": {"_target_": "x.y"}}
    (release / "run_config.yaml").write_text(yaml.safe_dump(config))
    back = from_megatron(tmp_path / "megatron", tmp_path / "back")
    assert checkpoint_model(back.path) == model(ARGUMENTS[kind])
    assert whole_tensors(back.path).keys() == whole_tensors(ours).keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no `model` in it: give the model with --model FILE.toml"),
        ("model: 3", "no `model` in it"),
        ("model: {}", "is missing, and decides"),
        ("model: {a: &a {b: 1}, c: {<<: *a}}", "not YAML of plain values"),
        ("model: !!python/object/apply:os.system [id]", "not YAML of plain values"),
        ("model: !!python/name:os.system", "not YAML of plain values"),
        ("[" * 5000, "not YAML of plain values"),
        ("a: [", "not YAML of plain values"),
        ("model: {num_layers: " + "1" * 5000 + "}", "not YAML of plain values"),
        ("model: \x00", "not YAML of plain values"),
    ],
)
def test_hostile_yaml_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run_config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        model_of(of_run_config(path), 264)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_are_not_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 2]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    path = tmp_path / "run_config.yaml"
    path.write_text("model:\n" + "\n".join(f"  {line}" for line in lines))
    assert isinstance(of_run_config(path), MegatronSettings)


def test_a_given_model_is_taken_and_arguments_are_not_read(tmp_path: Path) -> None:
    ours = random_checkpoint(tmp_path / "ours", CONFIGS["sparse"])
    to_megatron(ours, tmp_path / "megatron")
    common = tmp_path / "megatron/release/common.pt"
    torch.save({"args": argparse.Namespace(num_layers=2)}, common)
    with pytest.raises(ConfigError, match=r"common.pt: .* is missing, and decides"):
        from_megatron(tmp_path / "megatron", tmp_path / "back")
    common.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"common.pt: missing or damaged: no archive"):
        from_megatron(tmp_path / "megatron", tmp_path / "back")
    back = from_megatron(tmp_path / "megatron", tmp_path / "back", model=str(ours / "model.toml"))
    assert checkpoint_model(back.path) == CONFIGS["sparse"]
