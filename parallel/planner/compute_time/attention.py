"""Seconds of scaled-dot-product attention, fused (one kernel, scores never leave the SM) or not.

A fused kernel gives an SM one block of queries of one head at a time. A pair of query and key costs

    pair = sqrt(products^2 + softmax^2) seconds of one SM
    products = FLOPs (forward 2 qk_dim + 2 v_dim, backward 6 qk_dim + 4 v_dim) / the SM's rate

because products and exponentials of two blocks overlap (Shah et al. 2024, FlashAttention-3, section
3.1). Causal masks leave half of the pairs, and half of each block on the diagonal; a window leaves
`window` keys and part of one block to each query.
"""

from dataclasses import dataclass
from math import ceil

from parallel.hardware.card import Card
from parallel.hardware.kernel_parameters import AttentionParameters
from parallel.planner.compute_time.gemm import (
    OPERAND_BYTES,
    gemm_seconds,
    peak_flops_per_s,
    power_stretch,
)
from parallel.planner.compute_time.memory_bound import stream_seconds

_SHARPNESS = 4
_WHOLE_HEAD = 128
_OVERLAP = 3


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """One attention of one layer on one rank."""

    batch: int
    """Sequences."""
    seq: int
    """Queries, and keys, of one sequence (all context-parallel ranks together)."""
    heads: int
    """Query heads on this rank."""
    kv_heads: int
    """Key-value heads on this rank; latent attention: `heads`."""
    qk_dim: int
    v_dim: int
    causal: bool = True
    window: int | None = None
    """Keys that a query sees, itself counted; None: all."""
    precision: str = "bf16"
    """bf16, or fp32 where no fused kernel of another is had: on a CPU."""
    shards: int = 1
    """Context-parallel ranks, which share the pairs evenly."""

    def flops_of_pair(self, backward: bool) -> float:
        """Return FLOPs of a pair: scores and outputs; backward: scores again and four gradients."""
        return float(
            6 * self.qk_dim + 4 * self.v_dim if backward else 2 * (self.qk_dim + self.v_dim)
        )

    def pairs(self, block: int) -> float:
        """Return the pairs of query and key that one head works on, with blocks of queries."""
        reach = self.seq if self.window is None else min(self.window, self.seq)
        if not self.causal:
            return float(self.seq * reach)
        whole = reach * (reach + 1) / 2 + (self.seq - reach) * reach
        return whole + self.seq * min(block, self.seq) / 2


def attention_seconds(
    card: Card, shape: AttentionShape, *, backward: bool = False, repetitions: int | None = None
) -> float:
    """Return the seconds of fused attention, forward or backward.

    Sinks add one exponential a query, which is not counted. Backward is without determinism.
    """
    parameters = card.kernels.attention_backward if backward else card.kernels.attention_forward
    sms = card.rates.sms
    flops_of_pair = shape.flops_of_pair(backward)
    products_s = (
        flops_of_pair * sms / (peak_flops_per_s(card, shape.precision) * parameters.efficiency)
    )
    pair_s: float = (products_s**_OVERLAP + parameters.softmax_seconds**_OVERLAP) ** (1 / _OVERLAP)
    if shape.qk_dim > _WHOLE_HEAD:
        pair_s *= parameters.wide_head_stretch
    heads = shape.batch * shape.heads
    pairs = heads * shape.pairs(parameters.block) / shape.shards
    compute_s = _busiest_sm_seconds(shape, parameters, pairs, pair_s, sms)
    moved = _moved_bytes(shape, backward)
    memory_s = moved / (card.rates.memory_bytes_per_s * card.kernels.stream_efficiency)
    seconds = float((compute_s**_SHARPNESS + memory_s**_SHARPNESS) ** (1 / _SHARPNESS))
    joules = pairs * flops_of_pair * parameters.joules_per_flop
    joules += moved * card.kernels.joules_per_byte
    seconds *= power_stretch(card, seconds, joules, repetitions)
    factor = card.kernels.machine_factor(attention_kind(shape.precision, backward=backward))
    return factor * (parameters.fixed_seconds + seconds)


def attention_kind(precision: str, *, backward: bool) -> str:
    """Return the kind of kernel that a machine's factor is kept for: 16 bits are not named."""
    kind = "attention.backward" if backward else "attention.forward"
    return kind if precision == "bf16" else f"{kind}.{precision}"


def _busiest_sm_seconds(
    shape: AttentionShape, parameters: AttentionParameters, pairs: float, pair_s: float, sms: int
) -> float:
    """Return the seconds of the SM that ends last.

    Blocks of one length come in waves; those of causal attention, longest first, even out.
    """
    blocks = shape.batch * shape.heads * ceil(shape.seq / parameters.block / shape.shards)
    if not shape.causal:
        return ceil(blocks / sms) * (pairs / blocks * pair_s + parameters.block_seconds)
    reach = shape.seq if shape.window is None else min(shape.window, shape.seq)
    longest = min(parameters.block, shape.seq) * reach * pair_s + parameters.block_seconds
    even = (pairs * pair_s + blocks * parameters.block_seconds) / sms
    return float((even**_SHARPNESS + longest**_SHARPNESS) ** (1 / _SHARPNESS))


def _moved_bytes(shape: AttentionShape, backward: bool) -> float:
    """Return bytes of queries, keys, values and outputs; backward: their gradients, dq in FP32."""
    tokens = shape.batch * shape.seq / shape.shards
    queries = tokens * shape.heads * shape.qk_dim
    outputs = tokens * shape.heads * shape.v_dim
    keys = tokens * shape.kv_heads * (shape.qk_dim + shape.v_dim) * shape.shards
    element = OPERAND_BYTES[shape.precision]
    forward = element * (queries + outputs + keys)
    if not backward:
        return forward
    return 2 * forward + element * outputs + 8 * queries


def unfused_attention_seconds(
    card: Card, shape: AttentionShape, *, backward: bool = False
) -> float:
    """Return the seconds of attention whose scores go through memory.

    Products are of whole matrices, masked or not, and read and write the scores; the softmax reads
    and writes them once more. Backward has two products for each, and moves twice as many bytes.
    """
    heads = shape.batch * shape.heads
    rows = heads * shape.seq / shape.shards
    pairs = rows * shape.seq
    products = gemm_seconds(card, rows, shape.seq, shape.qk_dim, shape.precision) + gemm_seconds(
        card, rows, shape.v_dim, shape.seq, shape.precision
    )
    softmax_s = stream_seconds(card, 2 * OPERAND_BYTES[shape.precision] * pairs)
    if not backward:
        return products + softmax_s
    return 2 * products + 2 * softmax_s
