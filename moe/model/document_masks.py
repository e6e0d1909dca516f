"""Attention that stays within documents: the model's inputs, for both kernel sets.

`cu_seqlens` are the cumulative lengths of the documents in the B * S tokens of a batch laid end to
end, int32 [documents + 1], beginning with 0.
"""

from typing import Any

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from torch import Tensor

from parallel.precision.recipes import Precision


def document_inputs(cu_seqlens: Tensor | None, precision: Precision) -> dict[str, Any]:
    """Return the model's keyword arguments that restrict attention to each document.

    Args:
        cu_seqlens: On the CPU; None: attention is causal over each row. Rotary embeddings encode
            only differences of positions, so positions need not restart at a document; Transformer
            Engine's do.
        precision: Names the kernel set.
    """
    if cu_seqlens is None:
        return {"attention_mask": None}
    if precision.kernels == "torch":
        return {"attention_mask": cu_seqlens}
    on_device = cu_seqlens.to(torch.cuda.current_device(), torch.int32)
    longest = int(torch.diff(cu_seqlens).max())
    packed = PackedSeqParams(
        qkv_format="thd",
        cu_seqlens_q=on_device,
        cu_seqlens_kv=on_device,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
    )
    return {"attention_mask": None, "packed_seq_params": packed}


def cu_seqlens_of(attention_mask: Tensor | None, packed: PackedSeqParams | None) -> Tensor | None:
    """Return the documents' borders that `document_inputs` gave the model; None: it gave none."""
    if packed is not None:
        borders: Tensor = packed.cu_seqlens_q
        return borders
    return attention_mask


def document_indices(cu_seqlens: Tensor) -> Tensor:
    """Return the index of each token's document, int64 [B * S]."""
    return torch.repeat_interleave(torch.diff(cu_seqlens))
