"""Initial weights that depend on the seed and the place in the model, not on the layout."""

import hashlib
import math

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories
from megatron.core.models.gpt import GPTModel

from moe.config.model import ModelConfig

SHARDING = {"non_homogeneous_layers": True}
"""Checkpoint keys carry each layer's own number, since sparse and dense layers may alternate."""


@torch.no_grad()
def initialize_weights(chunk: GPTModel, model: ModelConfig, seed: int) -> None:
    """Fill matrices with normal values that depend only on the seed and the place in the model.

    Standard deviation `init_std`; output projections of attention and feed-forward networks
    divide it by sqrt(2 num_layers) (GPT-2; arXiv:1909.08053, section 3). Norms stay one,
    biases zero. The place is taken from the sharding that checkpoints use, so that every
    layout starts from the same model.
    """
    state = chunk.sharded_state_dict(metadata=SHARDING)
    apply_factories(state)
    output_std = model.init_std / math.sqrt(2 * model.num_layers)
    for shard in nested_values(state):
        if not isinstance(shard, ShardedTensor) or not torch.is_floating_point(shard.data):
            continue
        name = shard.key
        if name.endswith(("norm.weight", "layernorm.weight", "expert_bias")):
            continue
        if name.endswith("bias"):
            shard.data.zero_()
            continue
        is_output = name.endswith(("linear_proj.weight", "linear_fc2.weight", "experts.down"))
        _fill_normal(shard, output_std if is_output else model.init_std, seed)


def _fill_normal(shard: ShardedTensor, std: float, seed: int) -> None:
    """Draw the whole matrix (of each expert) and keep this rank's part."""
    data, place = shard.data, list(shard.global_offset)[shard.prepend_axis_num :]
    whole = list(shard.global_shape)[shard.prepend_axis_num :]
    if "experts." in shard.key and data.dim() > 2:
        for expert, part in enumerate(data):
            name = f"{shard.key}.{place[0] + expert}"
            part.copy_(_normal_part(name, seed, std, whole[1:], place[1:], part))
    else:
        data.copy_(_normal_part(shard.key, seed, std, whole, place, data))


def _normal_part(
    name: str, seed: int, std: float, whole: list[int], place: list[int], part: torch.Tensor
) -> torch.Tensor:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator(part.device).manual_seed(int.from_bytes(digest[:7], "big"))
    values = torch.empty(whole, dtype=torch.float32, device=part.device)
    values.normal_(0.0, std, generator=generator)
    window = tuple(slice(a, a + n) for a, n in zip(place, part.shape, strict=True))
    return values[window]
