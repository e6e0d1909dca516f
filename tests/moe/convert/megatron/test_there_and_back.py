"""Our checkpoints to Megatron's format and back: every bit, and the same model."""

from pathlib import Path

import pytest
import torch

from moe.convert.family import functional_config, model_differences
from moe.convert.hugging_face import checkpoint_model
from moe.convert.megatron.arguments import arguments_of
from moe.convert.megatron.from_megatron import from_megatron
from moe.convert.megatron.to_megatron import to_megatron
from moe.errors import ConfigError
from tests.support.architecture_options import CONFIGS
from tests.support.random_checkpoints import random_checkpoint, whole_tensors

REFUSED = {
    "qk_norm_full": "qk_norm = 'full'",
    "yarn_partial": "rotary_percent = 0.5 cannot be converted",
    "latent_llama3": "rope_scaling = True cannot be converted",
    "llama3_rope": "original_max_seq_len = 32",
    "sigmoid_not_normalised": "moe.normalize_top_k = False",
    "groups": "moe_router_pre_softmax = False cannot be converted",
    "groups_by_best": "moe_router_pre_softmax = False cannot be converted",
    "sinkhorn": "moe_router_load_balancing_type = 'sinkhorn' cannot be converted",
    "sinkhorn_one_expert": "moe_router_load_balancing_type = 'sinkhorn' cannot be converted",
    "capacity_by_position": "moe_token_drop_policy = 'position' cannot be converted",
    "forced_balance": "moe_router_force_load_balancing = True cannot be converted",
}
"""What Megatron-LM computes differently, and how that is said."""


@pytest.mark.parametrize("kind", sorted(CONFIGS.keys() - REFUSED.keys()))
def test_every_bit_comes_back(kind: str, tmp_path: Path) -> None:
    dtype = "BF16" if "moe" in kind or kind == "deepseek_v3" else "F32"
    ours = random_checkpoint(tmp_path / "ours", CONFIGS[kind], dtype)
    done = to_megatron(ours, tmp_path / "megatron")
    back = from_megatron(tmp_path / "megatron", tmp_path / "back")
    assert done.parameters == back.parameters
    before, after = whole_tensors(ours), whole_tensors(back.path)
    assert before.keys() == after.keys()
    assert all(
        before[key].dtype == after[key].dtype and torch.equal(before[key], after[key])
        for key in before
    )
    models = (functional_config(model) for model in (CONFIGS[kind], checkpoint_model(back.path)))
    assert model_differences(*models) == []


@pytest.mark.parametrize("kind", REFUSED)
def test_what_megatron_lm_has_not_is_refused(kind: str, tmp_path: Path) -> None:
    ours = random_checkpoint(tmp_path / "ours", CONFIGS[kind])
    with pytest.raises(ConfigError, match="Megatron-LM has no") as caught:
        to_megatron(ours, tmp_path / "megatron")
    assert REFUSED[kind] in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "megatron").exists()


def test_numbers_are_written_as_asked_but_for_balancing_biases(tmp_path: Path) -> None:
    ours = random_checkpoint(tmp_path / "ours", CONFIGS["deepseek_v3"])
    to_megatron(ours, tmp_path / "megatron", dtype="BF16")
    back = from_megatron(tmp_path / "megatron", tmp_path / "back")
    for key, tensor in whole_tensors(back.path).items():
        assert tensor.dtype == (torch.float32 if key.endswith("_bias") else torch.bfloat16), key
    with pytest.raises(ConfigError, match="--dtype F8: there are"):
        to_megatron(ours, tmp_path / "other", dtype="F8")


def test_arguments_say_what_use_checkpoint_args_reads() -> None:
    found = arguments_of(CONFIGS["deepseek_v3"])
    asked = (
        "num_layers hidden_size ffn_hidden_size seq_length num_attention_heads num_query_groups"
        " group_query_attention kv_channels max_position_embeddings position_embedding_type"
        " add_position_embedding use_rotary_position_embeddings rotary_base rotary_percent"
        " rotary_interleaved add_bias_linear add_qkv_bias squared_relu swiglu"
        " untie_embeddings_and_output_weights apply_layernorm_1p normalization"
        " apply_query_key_layer_scaling attention_dropout hidden_dropout mtp_num_layers spec"
        " num_experts moe_layer_freq moe_ffn_hidden_size moe_router_topk moe_token_dispatcher_type"
        " moe_router_pre_softmax moe_grouped_gemm moe_shared_expert_intermediate_size"
        " moe_router_score_function moe_router_enable_expert_bias moe_router_topk_scaling_factor"
        " heterogeneous_layers_config_path padded_vocab_size ckpt_format"
        " tensor_model_parallel_size pipeline_model_parallel_size expert_model_parallel_size"
    )
    assert not set(asked.split()) - found.keys()
