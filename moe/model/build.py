"""Build this rank's chunks of a model on megatron-core."""

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.transformer_config import TransformerConfig

from moe.config.kernels import build_fault
from moe.config.model import ModelConfig
from moe.errors import ConfigError
from moe.model.fp8.primary_weights import unquantized
from moe.model.initialization import initialize_weights
from moe.model.language_model import LanguageModel
from moe.model.layer_specs import block_specs
from moe.model.mcore_config import transformer_config
from moe.model.rope import set_frequencies
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision


def build_model(
    model: ModelConfig, layout: Layout, precision: Precision, *, seed: int | None
) -> list[LanguageModel]:
    """Build this rank's chunks of a model: one, or `vpp` of an interleaved pipeline.

    Initial weights depend on the seed and on each weight's position in the full model, not on the
    layout; without a seed they are not set. The engine must have been started.

    Raises:
        ConfigError: megatron-core or the kernel set does not support the model in this layout.
    """
    if fault := build_fault(model, precision):
        raise ConfigError(fault)
    config = transformer_config(model, layout, precision)
    stages = range(layout.vpp) if layout.vpp > 1 else [None]
    chunks = [_build_chunk(model, config, precision, stage) for stage in stages]
    if seed is not None:
        for chunk in chunks:
            with unquantized(chunk):
                initialize_weights(chunk, model, seed)
    return chunks


def _build_chunk(
    model: ModelConfig, config: TransformerConfig, precision: Precision, stage: int | None
) -> LanguageModel:
    vp = {"ignore_virtual": False, "vp_stage": stage}
    block, mtp = block_specs(model, config, precision, stage)
    chunk = LanguageModel(
        config=config,
        transformer_layer_spec=block,
        mtp_block_spec=mtp,
        vocab_size=model.vocab_size,
        max_sequence_length=model.max_seq_len,
        pre_process=parallel_state.is_pipeline_first_stage(**vp),
        post_process=parallel_state.is_pipeline_last_stage(**vp),
        share_embeddings_and_output_weights=model.tie_embeddings,
        position_embedding_type="rope",
        rotary_percent=model.rope.fraction,
        vp_stage=stage,
    )
    set_frequencies(chunk, model)
    _mark_experts(chunk)
    if precision.kernels == "te" and config.context_parallel_size > 1:
        _share_sink_gradients(chunk, config.context_parallel_size)
    chunk.to(torch.cuda.current_device())
    return chunk


def _mark_experts(chunk: LanguageModel) -> None:
    """Mark experts' weights: gradients are reduced over the expert data-parallel group.

    megatron-core's own modules count them as dense where ranks share no experts. 0.16 then loses
    what the tensor-parallel ranks contribute, and a checkpoint would name other optimizers.

    Each tensor-parallel rank's shard counts in the gradient norm, which Transformer Engine's
    modules do not say to megatron-core until 0.18; down-projections' biases are whole on each rank.
    """
    for name, weight in chunk.named_parameters():
        if ".experts." not in name:
            continue
        weight.allreduce = False
        for sharded, dim in {".linear_fc1.": 0, ".linear_fc2.weight": 1}.items():
            if sharded in name and not hasattr(weight, "tensor_model_parallel"):
                set_tensor_model_parallel_attributes(weight, is_parallel=True, dim=dim, stride=1)


def _share_sink_gradients(chunk: LanguageModel, cp: int) -> None:
    """Take one share of the sinks' gradients on each context-parallel rank.

    Transformer Engine (2.20, exchange a2a) gives every rank the whole gradient, which the engine
    sums over these ranks.
    """
    for name, weight in chunk.named_parameters():
        if name.endswith("core_attention.softmax_offset"):
            weight.register_hook(lambda gradient: gradient / cp)
