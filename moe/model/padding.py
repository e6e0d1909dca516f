"""Padding on its way to the routers, which send it to no expert.

megatron-core takes a padding mask through the model to each router, so that recomputation and
pipelines have the right micro-batch's. It needs help where the mask must be sharded, and in the
layers of multi-token prediction: depth d reads the token d further on, so the last d tokens of
every sequence have none, padded or not. (0.16 knows no padding there; 0.19 takes a missing token
for a token where no padding follows.)

Shapes: S sequence on this rank, B batch.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.transformer.multi_token_prediction import roll_tensor
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

TOKENS_AHEAD = "context_mask"
"""The argument that takes `tokens_ahead` through prediction layers and their recomputation: that
of cross-attention, which our models do not have."""


def shard_like_hidden(
    x_bs: Tensor | None, config: TransformerConfig, tp_group: dist.ProcessGroup
) -> Tensor | None:
    """Return [B, S] as hidden states lie: under sequence parallelism this rank's S / tp."""
    if x_bs is None or not config.sequence_parallel:
        return x_bs
    return x_bs.chunk(tp_group.size(), dim=1)[tp_group.rank()]


def tokens_ahead(
    labels_bs: Tensor, padding_mask_bs: Tensor | None, config: TransformerConfig, groups: Any
) -> Tensor | None:
    """Return how many of the depths of prediction have a token to read, as hidden states lie."""
    is_token = torch.ones_like(labels_bs)
    if padding_mask_bs is not None:
        is_token = is_token.masked_fill(padding_mask_bs, 0)
    ahead = torch.zeros_like(labels_bs)
    for _ in range(config.mtp_num_layers):
        is_token, _ = roll_tensor(is_token, cp_group=groups.cp)
        ahead += is_token
    return shard_like_hidden(ahead, config, groups.tp)


def hide_padding_of_prediction(layer: Any, depth: int) -> None:
    """Let the Transformer layer of a prediction depth route only where it has a token to read."""
    layer.register_forward_pre_hook(partial(_mask_padding, depth), with_kwargs=True)


def _mask_padding(
    depth: int, _layer: Any, args: tuple[Any, ...], values: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ahead_bs = values[TOKENS_AHEAD]
    return args, values | {TOKENS_AHEAD: None, "padding_mask": ahead_bs < depth}
