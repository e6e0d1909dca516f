"""How megatron-core cuts a tensor over tensor-parallel ranks, by its name.

ColumnParallelLinear cuts rows of a weight, RowParallelLinear its columns
(`megatron/core/tensor_parallel/layers.py`); a gated layer's rows are a share of the gate, then one
of up (`megatron/core/transformer/mlp.py`).
"""

import re
from dataclasses import dataclass
from typing import Any

from moe.errors import ConfigError
from moe.storage.safetensors_io import TensorShape

_ROWS = re.compile(
    r"(.*\.)?(linear_qkv|linear_q_proj|linear_q_up_proj|linear_kv_up_proj|word_embeddings"
    r"|output_layer|eh_proj)\.(weight|bias)|.*\.softmax_offset"
)
_GATED = re.compile(r".*\.linear_fc1\.(weight|bias)")
_COLUMNS = re.compile(r".*\.(linear_proj|linear_fc2)\.weight")
_LATENT = re.compile(r".*\.linear_(q|kv)_down_proj\.weight")


@dataclass(frozen=True)
class Piece:
    """A block of a rank's tensor, and where it lies in the whole one."""

    inside: tuple[slice, ...]
    offset: TensorShape
    shape: TensorShape


@dataclass(frozen=True)
class Share:
    """What of a whole tensor a rank has."""

    whole: TensorShape
    pieces: tuple[Piece, ...]


def share_of(
    name: str, shape: TensorShape, rank: int, ranks: int, arguments: dict[str, Any]
) -> Share:
    """Return where a rank's tensor of this shape lies.

    Args:
        name: The tensor's; what is not known is whole on every rank.
        shape: Of the rank's tensor.
        rank: Among the ranks that share it.
        ranks: How many they are.
        arguments: Of Megatron-LM.

    Raises:
        ConfigError: A gated layer's rows are no two halves.
    """
    if not shape or ranks == 1:
        return _cut(shape, 0, 0, 1)
    if _GATED.fullmatch(name):
        return _halves(name, shape, rank, ranks)
    if _COLUMNS.fullmatch(name) and len(shape) > 1:
        return _cut(shape, 1, rank, ranks)
    match = _LATENT.fullmatch(name)
    if _ROWS.fullmatch(name) or (match and shape[0] * ranks == _latent_rows(match[1], arguments)):
        return _cut(shape, 0, rank, ranks)
    return _cut(shape, 0, 0, 1)


def _latent_rows(kind: str, arguments: dict[str, Any]) -> Any:
    """Return the rows of a down projection; Transformer Engine's are whole on every rank."""
    if kind == "q":
        return arguments.get("q_lora_rank")
    sizes = [arguments.get(key) for key in ("kv_lora_rank", "qk_pos_emb_head_dim")]
    return sum(size for size in sizes if isinstance(size, int))


def _cut(shape: TensorShape, axis: int, rank: int, ranks: int) -> Share:
    whole = tuple(n * ranks if i == axis else n for i, n in enumerate(shape))
    offset = tuple(n * rank if i == axis else 0 for i, n in enumerate(shape))
    return Share(whole, (Piece(tuple(slice(0, n) for n in shape), offset, shape),))


def _halves(name: str, shape: TensorShape, rank: int, ranks: int) -> Share:
    rows, rest = shape[0] // 2, shape[1:]
    if shape[0] % 2:
        raise ConfigError(f"{name} {list(shape)} has no halves for gate and up")
    pieces = tuple(
        Piece(
            (slice(half * rows, (half + 1) * rows), *(slice(0, n) for n in rest)),
            (half * rows * ranks + rank * rows, *(0 for _ in rest)),
            (rows, *rest),
        )
        for half in (0, 1)
    )
    return Share((shape[0] * ranks, *rest), pieces)
