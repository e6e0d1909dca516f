"""Published `config.json` files read to the shipped models; patterns and families by hand."""

from typing import Any

import pytest

from moe.config.experiment import load_model
from moe.config.model import ModelConfig
from moe.config.presets.catalog import preset_names
from moe.convert.family import functional_config
from moe.convert.hub_config import HubConfig, sparse_pattern
from moe.convert.registry import family_for, family_of
from moe.errors import ConfigError

LATENT: dict[str, Any] = {
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "moe_layer_freq": 1,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "kimi-k2": LATENT
    | {
        "model_type": "kimi_k2", "num_hidden_layers": 61, "hidden_size": 7168,
        "num_attention_heads": 64, "num_key_value_heads": 64, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "vocab_size": 163840, "max_position_embeddings": 131072,
        "q_lora_rank": 1536, "n_routed_experts": 384, "num_experts_per_tok": 8,
        "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
        "norm_topk_prob": True, "routed_scaling_factor": 2.827, "scoring_func": "sigmoid",
        "topk_method": "noaux_tc", "rope_theta": 50000.0,
        "rope_scaling": {
            "type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096,
            "beta_fast": 1.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        },
    },
    "deepseek-v2-lite": LATENT
    | {
        "model_type": "deepseek_v2", "num_hidden_layers": 27, "hidden_size": 2048,
        "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 10944,
        "moe_intermediate_size": 1408, "vocab_size": 102400, "max_position_embeddings": 163840,
        "q_lora_rank": None, "n_routed_experts": 64, "num_experts_per_tok": 6,
        "n_shared_experts": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
        "norm_topk_prob": False, "routed_scaling_factor": 1.0, "scoring_func": "softmax",
        "topk_method": "greedy", "rope_theta": 10000,
        "rope_scaling": {
            "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
            "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
        },
    },
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "intermediate_size": 6144, "moe_intermediate_size": 768, "vocab_size": 151936,
        "max_position_embeddings": 40960, "num_experts": 128, "num_experts_per_tok": 8,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": None,
        "attention_bias": False, "use_sliding_window": False, "hidden_act": "silu",
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_configurations_are_the_shipped_models(preset: str) -> None:
    config = HubConfig(preset, PUBLISHED[preset])
    assert functional_config(family_of(config).model(config)) == functional_config(
        load_model(preset)
    )


@pytest.mark.parametrize("preset", preset_names())
def test_a_family_is_found_for_every_shipped_model_and_reads_back(preset: str) -> None:
    model = load_model(preset)
    family, values = family_for(model)
    assert family.model_type == values["model_type"]
    back = family.model(HubConfig(preset, values), model.mtp_layers)
    assert functional_config(back) == functional_config(model)


@pytest.mark.parametrize(
    ("sparse", "pattern"),
    [
        ("1111", (0, 1)),
        ("0111", (1, 1)),
        ("0101", (1, 2)),
        ("1001", (0, 3)),
        ("0001", (3, 1)),
        ("1000", (0, 4)),
    ],
)
def test_sparse_layers_by_first_and_interval(sparse: str, pattern: tuple[int, int]) -> None:
    layers = [digit == "1" for digit in sparse]
    found = sparse_pattern(HubConfig("x", {}), layers)
    assert (found["first_dense_layers"], found["layer_interval"]) == pattern


@pytest.mark.parametrize(
    ("sparse", "message"), [("1011", "does not repeat"), ("0000", "a dense model")]
)
def test_other_patterns_are_refused(sparse: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sparse_pattern(HubConfig("x", {}), [digit == "1" for digit in sparse])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qk_norm": "full", "moe": {"score_function": "sigmoid"}}, "score_function = 'sigmoid'"),
        ({"attention_sinks": True}, "attention_sinks = True"),
        ({"moe": {"layer_interval": 2, "shared_expert_ffn_hidden_size": 8}}, "shared_expert"),
        ({"rope": {"fraction": 0.5}}, r"rope.fraction = 0.5"),
        ({"mtp_layers": 1}, "mtp_layers = 1"),
    ],
)
def test_what_no_family_computes_is_named(changes: dict[str, Any], message: str) -> None:
    values = load_model("tiny").model_dump()
    values |= changes | {"moe": values["moe"] | changes.get("moe", {})}
    with pytest.raises(
        ConfigError, match=rf"transformers has no such model; the nearest.*{message}"
    ):
        family_for(ModelConfig.model_validate(values))


def test_numbers_are_equal_whatever_their_kind_but_true_is_none() -> None:
    config = HubConfig("x", {"limit": 7, "bias": 0}, {"frequency": True})
    config.only("limit", 7.0)
    config.only("absent", 7.0)
    for key, allowed in (("bias", False), ("frequency", 1), ("limit", 8)):
        with pytest.raises(ConfigError, match=f"x: {key} = .* cannot be converted"):
            config.only(key, allowed)
