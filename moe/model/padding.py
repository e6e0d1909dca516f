"""Padding on its way to the routers, which send it to no expert.

megatron-core takes a padding mask through the model to each router, so that recomputation and
pipelines have the right micro-batch's. It needs help where the mask must be sharded, and in the
layers of multi-token prediction: depth d reads the token d further on, so the last d tokens of
every document have none, padded or not. (0.16 knows no padding there; 0.19 takes a missing token
for a token where no padding follows. With packed sequences both read token 0 behind a document's
end, without them the next document's token.)

Shapes: S sequence on this rank, B batch.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.transformer.multi_token_prediction import roll_tensor
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from moe.model.context_parallel import sequence_positions
from moe.model.document_masks import document_indices

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
    labels_bs: Tensor,
    padding_mask_bs: Tensor | None,
    cu_seqlens: Tensor | None,
    config: TransformerConfig,
    groups: Any,
) -> Tensor:
    """Return at how many depths of prediction each position has a token of its document to read.

    Args:
        labels_bs: Any tensor of the shape of this rank's labels.
        padding_mask_bs: True at padding; None: there is none.
        cu_seqlens: Of the documents in whole rows (document_masks.py); None: each row is one.
        config: Of the model.
        groups: Its process groups.
    """
    document = torch.ones_like(labels_bs)
    if cu_seqlens is not None:
        document += _own_documents(cu_seqlens, labels_bs, groups.cp)
    if padding_mask_bs is not None:
        document = document.masked_fill(padding_mask_bs, 0)
    ahead, further = torch.zeros_like(labels_bs), document
    for _ in range(config.mtp_num_layers):
        further, _ = roll_tensor(further, cp_group=groups.cp)
        ahead += (further == document) & (document > 0)
    return ahead


def _own_documents(cu_seqlens: Tensor, like_bs: Tensor, cp_group: dist.ProcessGroup) -> Tensor:
    """Return the index of the document of each position that this rank holds, [B, S]."""
    rows, length = like_bs.shape
    indices = document_indices(cu_seqlens).to(like_bs.device).view(rows, -1)
    if cp_group.size() == 1:
        return indices
    return indices[:, sequence_positions(cp_group.size(), length)[cp_group.rank()]]


def hide_padding_of_prediction(layer: Any, depth: int) -> None:
    """Let the Transformer layer of a prediction depth route only where it has a token to read."""
    layer.register_forward_pre_hook(partial(_mask_padding, depth), with_kwargs=True)


def _mask_padding(
    depth: int, _layer: Any, args: tuple[Any, ...], values: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ahead_bs = values[TOKENS_AHEAD]
    return args, values | {TOKENS_AHEAD: None, "padding_mask": ahead_bs < depth}
