"""Initial weights that depend on the seed and the position in the model, not on the layout."""

import hashlib
import math

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories

from moe.config.model import ModelConfig
from moe.model.language_model import LanguageModel


@torch.no_grad()
def initialize_weights(chunk: LanguageModel, model: ModelConfig, seed: int) -> None:
    """Fill matrices with normal values that depend only on seed and position in the model.

    Standard deviation `init_std`; output projections of attention and feed-forward networks
    divide it by sqrt(2 num_layers) (GPT-2; arXiv:1909.08053, section 3). Norms stay one,
    biases zero. The position comes from the sharding that checkpoints use, so that every layout
    starts from the same model.
    """
    state = chunk.sharded_state_dict()
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
    """Draw the full matrix (of each expert) and copy this rank's shard of it."""
    data, offset = shard.data, list(shard.global_offset)[shard.prepend_axis_num :]
    shape = list(shard.global_shape)[shard.prepend_axis_num :]
    if "experts." in shard.key and data.dim() > 2:
        for expert, matrix in enumerate(data):
            name = f"{shard.key}.{offset[0] + expert}"
            matrix.copy_(_normal_shard(name, seed, std, shape[1:], offset[1:], matrix))
    else:
        data.copy_(_normal_shard(shard.key, seed, std, shape, offset, data))


def _normal_shard(
    name: str, seed: int, std: float, shape: list[int], offset: list[int], like: torch.Tensor
) -> torch.Tensor:
    """Draw the matrix `name` of `shape` and return the block of `like`'s shape at `offset`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator(like.device).manual_seed(int.from_bytes(digest[:7], "big"))
    values = torch.empty(shape, dtype=torch.float32, device=like.device)
    values.normal_(0.0, std, generator=generator)
    block = tuple(slice(a, a + n) for a, n in zip(offset, like.shape, strict=True))
    return values[block]
