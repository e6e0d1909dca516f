"""Initial weights that depend on the seed and the position in the model, not on the layout."""

import hashlib
import math

import torch
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories

from moe.config.model import ModelConfig
from moe.config.tensor_names import ROUTED_EXPERTS, Role, role_of
from moe.model.language_model import LanguageModel


@torch.no_grad()
def initialize_weights(chunk: LanguageModel, model: ModelConfig, seed: int) -> None:
    """Fill matrices with normal values that depend only on seed and position in the model.

    Standard deviation `init_std`; output projections of attention and feed-forward networks
    divide it by sqrt(2 num_layers) (GPT-2; arXiv:1909.08053, section 3). Norms are one, biases
    zero. Name and position come from the sharding that checkpoints use, so that every layout and
    kernel set starts from the same model. Numbers are drawn on the CPU whatever the device, whose
    generators differ, and only of matrices that this rank has a part of.

    Raises:
        KeyError: A tensor has a name that no part of a model has.
    """
    state = chunk.sharded_state_dict()
    apply_factories(state)
    output_std = model.init_std / math.sqrt(2 * model.num_layers)
    for shard in nested_values(state):
        if not isinstance(shard, ShardedTensor):
            continue
        match role_of(shard.key):
            case Role.NORM:
                shard.data.fill_(1)
            case Role.BIAS:
                shard.data.zero_()
            case Role.INPUT:
                _fill_normal(shard, model.init_std, seed)
            case Role.OUTPUT:
                _fill_normal(shard, output_std, seed)
            case Role.BALANCE:
                pass


def _fill_normal(shard: ShardedTensor, std: float, seed: int) -> None:
    """Draw the full matrix (of each expert) and copy this rank's shard of it."""
    whole, offset = list(shard.global_shape), list(shard.global_offset)
    data = shard.data.view(*(1,) * shard.prepend_axis_num, *shard.data.shape)
    if ROUTED_EXPERTS in shard.key:
        for expert, matrix in enumerate(data, start=offset[0]):
            name = f"{shard.key}.{expert}"
            matrix.copy_(_normal_shard(name, seed, std, whole[1:], offset[1:], matrix.shape))
    else:
        data.copy_(_normal_shard(shard.key, seed, std, whole, offset, data.shape))


def _normal_shard(
    name: str, seed: int, std: float, shape: list[int], offset: list[int], block_shape: torch.Size
) -> torch.Tensor:
    """Draw the matrix `name` of `shape` and return its block of `block_shape` at `offset`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))
    values = torch.empty(shape, dtype=torch.float32, device="cpu")
    values.normal_(0.0, std, generator=generator)
    block = tuple(slice(a, a + n) for a, n in zip(offset, block_shape, strict=True))
    return values[block]
