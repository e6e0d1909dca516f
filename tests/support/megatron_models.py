"""Models of megatron-core itself, built and saved from arguments as Megatron-LM does it.

`gpt_builders.py` and `core_transformer_config_from_args` of Megatron-LM are followed; the layers
are megatron-core's local spec, which runs without Transformer Engine.
"""

import queue
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from moe.convert.megatron.settings import of_arguments
from parallel.layout.layout import Layout
from tests.support.architecture_options import randomize

ARGUMENTS: dict[str, Any] = {
    "num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "group_query_attention": True,
    "num_query_groups": 2, "kv_channels": 8, "ffn_hidden_size": 40, "normalization": "RMSNorm",
    "layernorm_epsilon": 1e-5, "layernorm_zero_centered_gamma": False, "swiglu": True,
    "quick_geglu": False, "squared_relu": False, "add_bias_linear": False, "add_qkv_bias": False,
    "position_embedding_type": "rope", "rotary_base": 10000, "rotary_percent": 1.0,
    "rotary_interleaved": False, "rotary_seq_len_interpolation_factor": None,
    "use_rope_scaling": False, "max_position_embeddings": 64, "seq_length": 32,
    "untie_embeddings_and_output_weights": True, "qk_layernorm": False, "qk_l2_norm": False,
    "multi_latent_attention": False, "init_method_std": 0.02, "hidden_dropout": 0.0,
    "attention_dropout": 0.0, "vocab_size": 250, "padded_vocab_size": 256, "num_experts": None,
    "params_dtype": torch.bfloat16, "mtp_num_layers": None, "spec": None, "rank": 0,
}  # fmt: skip
MOE: dict[str, Any] = {
    "num_experts": 4, "moe_router_topk": 2, "moe_ffn_hidden_size": 12, "moe_layer_freq": 1,
    "moe_shared_expert_intermediate_size": None, "moe_router_score_function": "softmax",
    "moe_router_pre_softmax": False, "moe_router_topk_scaling_factor": None,
    "moe_router_num_groups": None, "moe_router_group_topk": None,
    "moe_router_enable_expert_bias": False, "moe_router_bias_update_rate": 1e-3,
    "moe_router_load_balancing_type": "aux_loss", "moe_aux_loss_coeff": 0.01,
    "moe_z_loss_coeff": None, "moe_router_dtype": "fp32", "moe_expert_capacity_factor": None,
    "moe_token_drop_policy": "probs", "moe_token_dispatcher_type": "alltoall",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "dense": {"qk_layernorm": True, "add_qkv_bias": True, "layernorm_epsilon": 1e-3},
    "tied": MOE | {"untie_embeddings_and_output_weights": False, "rotary_base": 500.0},
    "first_dense": MOE | {"moe_layer_freq": [0, 1], "rotary_percent": 0.5, "kv_channels": 12},
    "before_softmax": MOE | {"moe_router_pre_softmax": True, "moe_router_topk_scaling_factor": 2.5},
    "biased": MOE
    | {
        "moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True,
        "moe_router_num_groups": 2, "moe_router_group_topk": 1, "mtp_num_layers": 1,
        "moe_shared_expert_intermediate_size": 20,
    },
    "gpt_oss": MOE
    | {
        "swiglu": False, "quick_geglu": True, "activation_func_clamp_value": 7.0,
        "glu_linear_offset": 1.0, "add_bias_linear": True, "softmax_type": "learnable",
        "window_size": (5, 0), "window_attn_skip_freq": 2, "position_embedding_type": "yarn",
        "rotary_scaling_factor": 4.0, "yarn_original_max_position_embeddings": 16,
        "yarn_beta_fast": 4.0, "yarn_beta_slow": None, "mscale": 1.0, "mscale_all_dim": 0.0,
        "yarn_correction_range_round_to_int": False,
    },
    "llama3": {"use_rope_scaling": True, "rope_scaling_factor": 8.0, "num_query_groups": 4},
}  # fmt: skip


def build_gpt(given: dict[str, Any], layout: Layout) -> Any:
    """Build megatron-core's GPTModel of Megatron-LM's arguments, filled with random numbers."""
    from dataclasses import fields

    import torch.nn.functional as F
    from megatron.core.fusions.fused_bias_geglu import quick_gelu
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import (
        get_gpt_decoder_block_spec,
        get_gpt_mtp_block_spec,
    )
    from megatron.core.transformer.transformer_config import TransformerConfig

    names = {field.name for field in fields(TransformerConfig)}
    values = {key: value for key, value in given.items() if key in names - {"params_dtype"}}
    values |= {
        "num_moe_experts": given["num_experts"],
        "gated_linear_unit": True,
        "activation_func": F.silu,
        "bias_activation_fusion": False,
        "masked_softmax_fusion": False,
        "gradient_accumulation_fusion": False,
        "attention_softmax_in_fp32": True,
        "transformer_impl": "local",
        "moe_grouped_gemm": False,
        "overlap_p2p_comm": False,
        "bf16": False,
        "tensor_model_parallel_size": layout.tp,
        "pipeline_model_parallel_size": layout.pp,
        "expert_model_parallel_size": layout.ep,
        "expert_tensor_parallel_size": layout.etp,
        "pipeline_dtype": torch.float32,
    }
    if given["quick_geglu"]:
        values["activation_func"] = quick_gelu
    config = TransformerConfig(**values)
    for key, value in of_arguments("arguments", given).values.items():
        if key.startswith("yarn_"):
            setattr(config, key, value)
    from megatron.core import parallel_state

    block = get_gpt_decoder_block_spec(config, use_transformer_engine=False)
    mtp = None
    if config.mtp_num_layers:
        mtp = get_gpt_mtp_block_spec(config, block, use_transformer_engine=False)
    model = GPTModel(
        config,
        block,
        vocab_size=given["padded_vocab_size"],
        max_sequence_length=given["max_position_embeddings"],
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=not given["untie_embeddings_and_output_weights"],
        position_embedding_type=given["position_embedding_type"],
        rotary_percent=given["rotary_percent"],
        rotary_base=given["rotary_base"],
        rope_scaling=given["use_rope_scaling"],
        mtp_block_spec=mtp,
    )
    randomize(model)
    return model.eval()


def save_gpt(model: Any, given: dict[str, Any], directory: Path, **metadata: Any) -> None:
    """Save a model with megatron-core, as Megatron-LM lays its checkpoints out."""
    import torch.distributed as dist
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    if dist.get_rank() == 0:
        directory.mkdir(parents=True)
    dist.barrier()
    state = {
        "model": model.sharded_state_dict(metadata=metadata or None),
        "args": Namespace(**given),
        "checkpoint_version": 3.0,
        "iteration": 7,
    }
    # Its own queue is a process that would outlive this rank.
    filesystem_async._results_queue = queue.Queue()
    dist_checkpointing.save(state, str(directory))


def save_all(
    out: Path, cases: dict[str, dict[str, Any]], layout: dict[str, int], metadata: dict[str, Any]
) -> None:
    """Build and save each of the models in a layout."""
    from parallel.engine.start import start_engine

    given = Layout(device="cpu", **layout)
    start_engine(given, seed=0)
    for name, changes in cases.items():
        arguments = ARGUMENTS | changes
        save_gpt(build_gpt(arguments, given), arguments, out / name / "iter_0000007", **metadata)


def gpt_logits(
    cases: dict[str, dict[str, Any]], tokens: torch.Tensor, out: Path, saved: tuple[str, ...]
) -> dict[str, Any]:
    """Return logits [B, S, V] of each of the models, in one process, and save some of them."""
    from parallel.engine.start import start_engine

    alone = Layout(device="cpu")
    start_engine(alone, seed=0)
    found = {}
    for name, changes in cases.items():
        arguments = ARGUMENTS | changes
        model = build_gpt(arguments, alone)
        if name in saved:
            save_gpt(model, arguments, out / name / "iter_0000007")
        found[name] = logits_of(model, tokens)
    return found


def logits_of(model: Any, tokens: torch.Tensor) -> Any:
    """Return logits of megatron-core's GPTModel, or of ours."""
    from moe.model.language_model import LanguageModel

    length = tokens.shape[1]
    positions = torch.arange(length).expand(tokens.shape)
    mask = None
    if not isinstance(model, LanguageModel):
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)[None, None]
        # 0.16 predicts further tokens even without labels, which that needs.
        model.mtp_process, model.config.mtp_num_layers = False, None
    with torch.no_grad():
        return model(tokens, positions, mask).numpy()


def load_gpt(model: Any, directory: Path, metadata: dict[str, Any]) -> None:
    """Load a checkpoint with megatron-core, as Megatron-LM does with what it says of itself."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.models.gpt import GPTModel

    if isinstance(model.config.moe_layer_freq, list) and all(model.config.moe_layer_freq):
        model.config.moe_layer_freq = 1  # as the arguments say it: layers are stacked
    state = {"model": GPTModel.sharded_state_dict(model, metadata=metadata)}
    for value in nested_values(state):
        # The local spec names this norm in sparse layers as if they were dense; others do not.
        if getattr(model.config, "num_moe_experts", None) is not None:
            _name_norm(value, model.config)
    loaded = dist_checkpointing.load(state, str(directory))
    model.load_state_dict(loaded["model"])


def _name_norm(value: Any, config: Any) -> None:
    before, after = "mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight"
    frequency = config.moe_layer_freq
    number = next((int(part) for part in value.key.split(".") if part.isdigit()), 0)
    dense = isinstance(frequency, list) and "decoder." in value.key and not frequency[number]
    if not dense:
        value.key = value.key.replace(before, after)


def logits_of_loaded(
    checkpoints: dict[str, Path], layout: dict[str, int], tokens: torch.Tensor
) -> dict[str, Any]:
    """Load each into the GPTModel that its arguments describe; return logits [B, S, V]."""
    from megatron.core import dist_checkpointing

    from parallel.engine.start import start_engine

    given = Layout(device="cpu", **layout)
    start_engine(given, seed=0)
    found = {}
    for name, directory in checkpoints.items():
        common = dist_checkpointing.load_common_state_dict(str(directory))
        model = build_gpt(vars(common["args"]), given)
        load_gpt(model, directory, common["content_metadata"])
        found[name] = logits_of(model, tokens)
    return found


def resave(
    models: dict[str, Any], checkpoints: dict[str, Path], out: Path, tokens: torch.Tensor
) -> dict[str, Any]:
    """Load each with megatron-core into our model, and save it again; returns logits."""
    from megatron.core import dist_checkpointing

    from moe.model.build import build_model
    from parallel.engine.start import start_engine
    from parallel.precision.recipes import Precision

    alone = Layout(device="cpu")
    start_engine(alone, seed=0)
    found = {}
    for name, directory in checkpoints.items():
        common = dist_checkpointing.load_common_state_dict(str(directory))
        model = build_model(models[name], alone, Precision(), seed=5)[0].eval()
        load_gpt(model, directory, common["content_metadata"])
        found[name] = logits_of(model, tokens)
        save_gpt(model, vars(common["args"]), out / name)
    return found
