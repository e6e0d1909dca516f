"""Keys of `config.json` that state one thing twice: as the class has it, or refused."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe.convert.family import functional_config
from moe.convert.hub_config import HubConfig
from moe.convert.hub_layers import DENSE, FULL, SLIDING, SPARSE
from moe.convert.registry import FAMILIES
from moe.errors import ConfigError
from tests.moe.convert.test_class_defaults import config_class, written
from tests.support.hf_reference_models import COMMON, MODELS, YARN

pytestmark = pytest.mark.needs("hub")

CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("qwen3_moe", {"layer_types": [SLIDING] * 3}, "layer_types has sliding_attention for layer 0"),
    (
        "qwen3_moe",
        {"layer_types": [FULL] * 3, "use_sliding_window": True, "sliding_window": 8},
        "layer_types has full_attention for layer 0",
    ),
    (
        "qwen3",
        {"layer_types": [FULL, FULL, SLIDING]},
        "sliding_attention for layer 2, which other keys",
    ),
    ("mixtral", {"layer_types": [FULL] * 3}, "which other keys make sliding_attention: make"),
    ("mistral", {"layer_types": [FULL] * 3}, "make sliding_attention"),
    ("llama", {"layer_types": [SLIDING] * 3}, "make full_attention"),
    ("llama", {"layer_types": [FULL] * 2}, "layer_types has 2 entries for 3 layers"),
    ("deepseek_v2", {"num_experts": 4}, "n_routed_experts and num_experts mean the same"),
    ("deepseek_v3", {"num_local_experts": None}, "n_routed_experts and num_local_experts mean the"),
    ("deepseek_v3", {"num_key_value_heads": 2}, "num_key_value_heads = 2 cannot be converted"),
    ("glm4_moe", {"topk_group": 0}, "topk_group = 0: wanted a number from 1 to 1"),
    ("dots1", {"n_group": None}, "n_group = null"),
    ("glm4_moe_lite", {"head_dim": 16}, "head_dim = 16 cannot be converted"),
    ("llama", {"hidden_size": 34, "head_dim": 8}, "hidden_size = 34 is no multiple of"),
    ("llama", {"mlp_layer_types": ["sparse"] * 3}, "mlp_layer_types has sparse for layer 0"),
    ("glm4_moe", {"mlp_layer_types": ["x"] * 3}, "mlp_layer_types has 'x': of these only"),
    ("qwen2_moe", {"mlp_layer_types": ["sparse"] * 3}, "which other keys make dense"),
    ("qwen3", {"head_dim": 7}, "head_dim .* rotates 7 dimensions of a head"),
    ("glm4_moe", {"head_dim": 6}, "rotates 3 dimensions of a head"),
    ("deepseek_v2", {"qk_rope_head_dim": 7}, "qk_rope_head_dim .* rotates 7 dimensions"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), CONTRADICTIONS)
def test_keys_that_state_one_thing_twice_agree(
    kind: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        FAMILIES[kind].model(HubConfig("x", written(kind) | changes))


@pytest.mark.parametrize(
    "table", [{}, {"rope_theta": 5.0}, {"rope_type": "default"}, None, {"rope_type": "yarn"} | YARN]
)
@pytest.mark.parametrize("older", [{}, None, {"rope_type": "yarn"} | YARN | {"factor": 2.0}])
@pytest.mark.parametrize("kind", ["gpt_oss", "llama", "deepseek_v3"])
def test_of_two_tables_of_rope_that_of_the_class_counts(kind: str, older: Any, table: Any) -> None:
    values = written(kind) | {"rope_parameters": table, "rope_scaling": older, "rope_theta": 7.0}
    theirs = HubConfig("x", config_class(kind)(**copy.deepcopy(values)).to_dict())
    models = [FAMILIES[kind].model(config) for config in (HubConfig("x", values), theirs)]
    assert functional_config(models[0]) == functional_config(models[1])


ROPE: list[Any] = [
    None, {}, {"rope_type": "default"}, {"rope_type": "default", "rope_theta": 5.0}, YARN,
    {"type": "yarn", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
]  # fmt: skip
RELATED: dict[str, list[Any]] = {
    "layer_types": [None, [FULL] * 3, [SLIDING] * 3, [SLIDING, FULL, SLIDING], [FULL, SLIDING]],
    "use_sliding_window": [True, False],
    "sliding_window": [None, 0, 8, 4096],
    "max_window_layers": [0, 1, 2, 28, None],
    "mlp_layer_types": [None, [DENSE, SPARSE, SPARSE], [SPARSE] * 3, [DENSE] * 3, ["x"] * 3],
    "mlp_only_layers": [None, [], [0], [1], [0, 1], [-1], [5]],
    "decoder_sparse_step": [1, 2, 0],
    "first_k_dense_replace": [0, 1, 2, 3, None],
    "hidden_size": [32, 33, 64],
    "num_attention_heads": [4, 2, 3],
    "num_key_value_heads": [None, 1, 2, 4],
    "head_dim": [None, 8, 7, 12],
    "qk_rope_head_dim": [8, 4, 7],
    "n_group": [None, 1, 2, 3],
    "topk_group": [None, 1, 2],
    "topk_method": ["greedy", "group_limited_greedy", None],
    "num_experts": [4, 8],
    "num_local_experts": [4, 8],
    "n_routed_experts": [4, 8],
    "rope_scaling": ROPE,
    "rope_parameters": ROPE,
    "rope_theta": [None, 5.0],
    "partial_rotary_factor": [None, 0.5, 1.0],
    "rotary_dim": [None, 4, 8],
    "original_max_position_embeddings": [None, 8],
    "transformers_version": ["4.57.1", "5.24.0"],
}


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(list(MODELS)),
    is_short=st.booleans(),
    changes=st.dictionaries(st.sampled_from(list(RELATED)), st.integers(0, 99), max_size=4),
)
def test_any_few_keys_mean_what_the_class_makes_of_them_or_are_refused(
    kind: str, is_short: bool, changes: dict[str, int]
) -> None:
    values = COMMON | MODELS[kind][1] if is_short else written(kind)
    values |= {key: RELATED[key][n % len(RELATED[key])] for key, n in changes.items()}
    try:
        ours = FAMILIES[kind].model(HubConfig("x", copy.deepcopy(values)))
    except ConfigError:
        return
    theirs = HubConfig("x", config_class(kind)(**copy.deepcopy(values)).to_dict())
    assert functional_config(ours) == functional_config(FAMILIES[kind].model(theirs))
