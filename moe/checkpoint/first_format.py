"""Checkpoints of format 1 under today's names.

Their names were those of kernel set `torch`: norms by themselves, and the gate and up projections
of experts in one tensor [E, 2, F, ..], where today's [E, 2 F, ..] has gate's rows before up's.
"""

import re
from collections.abc import Iterator, Sequence

from moe.checkpoint.index_format import TensorShard
from moe.checkpoint.regions import Region
from moe.config.tensor_names import EXPERT_WEIGHTS, norm_names

_LAYER = re.compile(r"(decoder\.layers\.\d+\.|mtp\.layers\.\d+\.transformer_layer\.)")
_EXPERTS = "mlp.experts."


class HalfShard(TensorShard):
    """A shard of gate or of up, stored in one tensor with a shard of the other."""

    half: int
    stored_halves: int

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the tensor in the file."""
        return (self.shape[0], self.stored_halves, *self.shape[1:])

    def stored_region(self, region: Region) -> Region:
        """Return a region of this shard as one of the tensor in the file."""
        return (region[0], slice(self.half, self.half + 1), *region[1:])


def with_todays_names(shards: Sequence[TensorShard]) -> tuple[TensorShard, ...]:
    """Return the shards of format 1 as shards of today's tensors; of weights or of optimizers."""
    keys = {shard.key for shard in shards}
    return tuple(renamed for shard in shards for renamed in _renamed(shard, keys))


def _renamed(shard: TensorShard, keys: set[str]) -> Iterator[TensorShard]:
    before, layer, name = (*_LAYER.split(shard.key, maxsplit=1), "", "")[:3]
    latent = f"{layer}self_attention.linear_kv_up_proj.weight" in keys
    norms = norm_names(latent=latent, sparse=f"{layer}mlp.router.weight" in keys)
    own = name.removeprefix(_EXPERTS)
    if name.startswith(_EXPERTS) and own in EXPERT_WEIGHTS:
        key = f"{before}{layer}{_EXPERTS}{EXPERT_WEIGHTS[own]}"
        if own.startswith("gate_up") and shard.global_shape[1:2] == (2,) and shard.shape[2:]:
            yield from _halves(shard, key)
            return
        name = f"{_EXPERTS}{EXPERT_WEIGHTS[own]}"
    for beginning, todays in norms.items():
        if name.startswith(beginning):
            name = todays + name.removeprefix(beginning)
    yield shard.model_copy(update={"key": f"{before}{layer}{name}"})


def _halves(shard: TensorShard, key: str) -> Iterator[HalfShard]:
    experts, halves, inner, *rest = shard.global_shape
    for half in range(shard.shape[1]):
        first = (shard.offset[1] + half) * inner + shard.offset[2]
        yield HalfShard(
            key=key,
            global_shape=(experts, halves * inner, *rest),
            offset=(shard.offset[0], first, *shard.offset[3:]),
            shape=(shard.shape[0], *shard.shape[2:]),
            file=shard.file,
            name=shard.name,
            half=half,
            stored_halves=shard.shape[1],
        )
