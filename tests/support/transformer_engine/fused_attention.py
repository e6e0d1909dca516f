"""Fused attention of 16 bits, forward and backward, one document after the other in FP32.

Tensors are [S, B, H, D], [B, S, H, D] or, packed, [T, H, D], as the layout's name says. The
softmax's statistics, from which the backward pass makes the probabilities again, are the logarithms
of its denominators: [B, H, S, 1], packed [T, H, 1].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.support.transformer_engine.enums import (
    DType,
    NVTE_Fused_Attn_Backend,
    NVTE_Softmax_Type,
)


def get_fused_attn_backend(params: Any) -> tuple[Any, str]:
    """Return whether fused attention can take a case: all of 16 bits without dropout or bias."""
    in_16_bits = DType(int(params.qkv_dtype)) in (DType.kBFloat16, DType.kFloat16)
    if in_16_bits and not params.dropout and params.bias_type.name == "NVTE_NO_BIAS":
        return NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen, ""
    return NVTE_Fused_Attn_Backend.NVTE_No_Backend, "16 bits, no dropout and no bias are answered"


@dataclass(frozen=True)
class Case:
    """What decides which key each query sees, and how scores become probabilities."""

    scale: float
    layout: str
    mask: str
    window: tuple[int, int]
    bottom_right: bool
    softmax: NVTE_Softmax_Type
    cu_seqlens: tuple[Tensor, Tensor]
    """Of queries and keys: lengths of the documents, in packed tensors and under padding masks."""
    starts: tuple[Tensor, Tensor]
    """Where the documents begin in packed tensors."""

    def documents(self, queries: Tensor) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Return each document's place in tensors of queries, and in tensors of keys."""
        documents = len(self.cu_seqlens[0]) - 1
        if "THD" not in self.layout:
            documents = queries.shape[self.layout.index("B")]
        for index in range(documents):
            yield self._place(0, index), self._place(1, index)

    def _place(self, side: int, index: int) -> tuple[Any, ...]:
        start, length = 0, None
        if "THD" in self.layout or "PADDING" in self.mask:
            length = int(self.cu_seqlens[side][index + 1] - self.cu_seqlens[side][index])
        if "THD" in self.layout:
            start = int(self.starts[side][index])
            assert length is not None
            return (slice(start, start + length),)
        tokens = slice(0, length)
        return (tokens, index) if self.layout.startswith("S") else (index, tokens)

    def probabilities(self, q: Tensor, k: Tensor, sinks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return scores [H, queries, keys], hidden ones -inf, and log-denominators [H, queries]."""
        scores = self.scale * (q @ k.mT)
        queries, keys = scores.shape[-2:]
        shift = keys - queries if self.bottom_right else 0
        distance = torch.arange(keys) - torch.arange(queries)[:, None] - shift
        left, right = self.window
        if "CAUSAL" in self.mask:
            right = 0
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        if left >= 0:
            hidden |= distance < -left
        if right >= 0:
            hidden |= distance > right
        scores = scores.masked_fill(hidden, -torch.inf)
        denominators = scores.logsumexp(-1)
        if sinks is not None:
            denominators = torch.logaddexp(denominators, sinks[:, None])
        return scores, denominators


def fused_attn_fwd(
    max_seqlen_q: int, max_seqlen_kv: int, is_training: bool, attn_scale: float, p_dropout: float,
    set_zero: bool, qkv_layout: Any, o_format: Any, qkv_scale_inv_format: Any, bias_type: Any,
    attn_mask_type: Any, softmax_type: Any, window_size: Any, bottom_right_diagonal: bool,
    cu_seqlens_q: Tensor, cu_seqlens_kv: Tensor, Q: Tensor, K: Tensor, V: Tensor, fake_dtype: Any,
    cu_seqlens_q_padded: Tensor | None, cu_seqlens_kv_padded: Tensor | None, page_table_k: Any,
    page_table_v: Any, s_quantizer: Any, o_quantizer: Any, Bias: Any, SoftmaxOffset: Any,
    rng_gen: Any, rng_elts_per_thread: int, return_max_logit: bool, cuda_graph: bool,
) -> list[Tensor]:  # fmt: skip
    """Return the output, the softmax's statistics, (unused) random state, and learned sinks."""
    if page_table_k is not None or Bias is not None or return_max_logit or o_quantizer is not None:
        raise NotImplementedError("fused_attn_fwd: pages, bias, largest scores and FP8")
    case = _case(
        attn_scale, qkv_layout, attn_mask_type, window_size, bottom_right_diagonal, softmax_type,
        (cu_seqlens_q, cu_seqlens_kv), (cu_seqlens_q_padded, cu_seqlens_kv_padded),
    )  # fmt: skip
    output = Q.new_zeros(*Q.shape[:-1], V.shape[-1])
    statistics = _empty_statistics(case, Q, max_seqlen_q)
    for index, (queries, keys) in enumerate(case.documents(Q)):
        q, k, v = _heads(Q[queries]), _heads(K[keys], Q), _heads(V[keys], Q)
        scores, denominators = case.probabilities(q, k, _sinks(case, SoftmaxOffset, q))
        output[queries] = _tokens(_exp(scores, denominators) @ v).to(Q.dtype)
        _document_statistics(statistics, case, index, queries)[:] = denominators
    learned = [SoftmaxOffset] if case.softmax.name == "NVTE_LEARNABLE_SOFTMAX" else []
    return [output, statistics, torch.zeros(2, dtype=torch.int64), *learned]


def fused_attn_bwd(
    max_seqlen_q: int, max_seqlen_kv: int, attn_scale: float, p_dropout: float, set_zero: bool,
    qkv_layout: Any, o_format: Any, do_format: Any, dqkv_layout: Any, qkv_scale_inv_format: Any,
    do_scale_inv_format: Any, bias_type: Any, attn_mask_type: Any, softmax_type: Any,
    window_size: Any, bottom_right_diagonal: bool, deterministic: bool, cu_seqlens_q: Tensor,
    cu_seqlens_kv: Tensor, Q: Tensor, K: Tensor, V: Tensor, O: Tensor, dO: Tensor, fake_dtype: Any,  # noqa: E741
    Aux_CTX_Tensors: list[Tensor], cu_seqlens_q_padded: Tensor | None,
    cu_seqlens_kv_padded: Tensor | None, s_quantizer: Any, dp_quantizer: Any, dqkv_quantizer: Any,
    cuda_graph: bool,
) -> list[Tensor | None]:  # fmt: skip
    """Return the gradients of queries, keys, values, bias (None) and sinks (None without)."""
    case = _case(
        attn_scale, qkv_layout, attn_mask_type, window_size, bottom_right_diagonal, softmax_type,
        (cu_seqlens_q, cu_seqlens_kv), (cu_seqlens_q_padded, cu_seqlens_kv_padded),
    )  # fmt: skip
    statistics, offset = Aux_CTX_Tensors[0], Aux_CTX_Tensors[-1]
    has_sinks = case.softmax.name == "NVTE_LEARNABLE_SOFTMAX"
    grad_sinks = torch.zeros_like(offset, dtype=torch.float32) if has_sinks else None
    grads = [torch.zeros_like(tensor) for tensor in (Q, K, V)]
    for index, (queries, keys) in enumerate(case.documents(Q)):
        q, k, v = _heads(Q[queries]), _heads(K[keys], Q), _heads(V[keys], Q)
        sinks = _sinks(case, offset, q)
        scores, _own = case.probabilities(q, k, sinks)
        denominators = _document_statistics(statistics, case, index, queries)
        p = _exp(scores, denominators)
        grad_output = _heads(dO[queries])
        mean = (grad_output * _heads(O[queries])).sum(-1)
        grad_scores = p * (grad_output @ v.mT - mean[..., None])
        grads[0][queries] = _tokens(case.scale * grad_scores @ k).to(Q.dtype)
        for grad, of_heads in (
            (grads[1], case.scale * grad_scores.mT @ q),
            (grads[2], p.mT @ grad_output),
        ):
            shared = of_heads.unflatten(0, (grad.shape[-2], -1)).sum(1)
            grad[keys] = _tokens(shared).to(grad.dtype)
        if grad_sinks is not None and sinks is not None:
            share = _exp(sinks[:, None, None], denominators)[..., 0]
            grad_sinks -= (share * mean).sum(-1).view(grad_sinks.shape)
    return [*grads, None, grad_sinks]


def _case(
    scale: float, layout: Any, mask: Any, window: Any, bottom_right: bool, softmax: Any,
    cu_seqlens: tuple[Tensor, Tensor], padded: tuple[Tensor | None, Tensor | None],
) -> Case:  # fmt: skip
    names = layout.name.removeprefix("NVTE_").translate(str.maketrans("", "", "23")).split("_")
    if len(set(names)) > 1:
        raise NotImplementedError(f"fused attention: {layout.name}")
    starts = tuple(p if p is not None else own for p, own in zip(padded, cu_seqlens, strict=True))
    return Case(
        scale=scale, layout=names[0], mask=mask.name, window=(int(window[0]), int(window[1])),
        bottom_right=bottom_right, softmax=softmax, cu_seqlens=cu_seqlens, starts=starts,
    )  # fmt: skip


def _sinks(case: Case, offset: Tensor | None, q: Tensor) -> Tensor | None:
    """Return one score a head that belongs to no key: learned, or zero."""
    if case.softmax.name == "NVTE_VANILLA_SOFTMAX":
        return None
    if case.softmax.name == "NVTE_OFF_BY_ONE_SOFTMAX":
        return q.new_zeros(q.shape[0])
    assert offset is not None
    return offset.float().flatten()


def _empty_statistics(case: Case, queries: Tensor, longest: int) -> Tensor:
    if "THD" in case.layout:
        return torch.zeros(*queries.shape[:2], 1)
    batch = queries.shape[case.layout.index("B")]
    return torch.zeros(batch, queries.shape[-2], longest, 1)


def _document_statistics(statistics: Tensor, case: Case, index: int, queries: Any) -> Tensor:
    """Return a document's part of the statistics, [H, queries], to read or to fill."""
    if "THD" in case.layout:
        return statistics[queries][..., 0].T
    length = queries[0].stop if case.layout.startswith("S") else queries[1].stop
    return statistics[index, :, :length, 0]


def _heads(tokens: Tensor, queries: Tensor | None = None) -> Tensor:
    """Return [H, tokens, D] in FP32; heads of keys as often as heads of queries share them."""
    heads = tokens.float().transpose(0, 1)
    return heads if queries is None else heads.repeat_interleave(queries.shape[-2] // len(heads), 0)


def _tokens(heads: Tensor) -> Tensor:
    return heads.transpose(0, 1)


def _exp(scores: Tensor, denominators: Tensor) -> Tensor:
    """Return probabilities; zeros where a query sees no key."""
    return (scores - denominators[..., None]).exp().nan_to_num(0.0)
