"""Which matrix products a training step computes: of every layer, at their own shapes.

Forward products are those of gemm_shapes.py. The backward pass adds two of the same size for each,
for the input's and the weight's gradient. Recomputation is no part of the floor.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.bench.attention import AttentionShape
from benchmarks.bench.floor import parts
from benchmarks.bench.gemm_shapes import (
    Gemm,
    attention_gemms,
    dense_gemms,
    expert_gemms,
    head_gemm,
    mtp_gemm,
    router_gemms,
    shared_expert_gemms,
)
from moe.config.model import ModelConfig

PASSES = 3
"""Products of a step for each one forward: with those of both gradients."""

Loads = Mapping[int, Sequence[tuple[int, ...]]]
"""Rows of each expert, by layer (from 0), for each micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product and its two backward products, all as often as a step computes them."""

    part: str
    gemm: Gemm
    calls: int

    @property
    def flops(self) -> float:
        """FLOPs of all calls, forward and backward."""
        return float(PASSES * self.gemm.flops * self.calls)


@dataclass(frozen=True, kw_only=True)
class AttentionCore:
    """Scores and weighted sum of one kind of layer, as often as a step computes them."""

    part: str
    shape: AttentionShape
    window: int | None
    """Tokens that a query sees; None: all before it."""
    calls: int

    @property
    def visible_share(self) -> float:
        """Query-key pairs that a window leaves, over those that the causal mask alone leaves."""
        seq_len = self.shape.seq_len
        seen = seq_len if self.window is None else min(self.window, seq_len)
        return seen * (2 * seq_len - seen) / seq_len**2

    @property
    def flops(self) -> float:
        """FLOPs of all calls as the cost ledger counts: backward twice the forward's."""
        return PASSES * self.shape.forward_flops * self.visible_share * self.calls


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """How much one rank computes in a step."""

    seq_len: int
    micro_batch_size: int
    micro_batches: int

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.seq_len * self.micro_batch_size


def step_products(model: ModelConfig, size: StepSize, loads: Loads) -> list[Product]:
    """Return all products of a step; equal ones are one entry.

    Layers without an entry in `loads` (those of multi-token prediction) are routed evenly.
    """
    counted: Counter[tuple[str, Gemm]] = Counter()
    for micro_batch in range(size.micro_batches):
        for layer, sparse in enumerate(model.sparse_layers):
            rows = loads[layer][micro_batch] if layer in loads else None
            counted.update(_layer(model, size.tokens, sparse=sparse, rows=rows))
        counted[parts.HEAD, head_gemm(model, size.tokens)] += 1 + model.mtp_layers
        for _ in range(model.mtp_layers):
            layer_products = _layer(model, size.tokens, sparse=model.sparse_layers[-1], rows=None)
            counted.update((parts.HEAD, gemm) for _part, gemm in layer_products)
            counted[parts.HEAD, mtp_gemm(model, size.tokens)] += 1
    return [Product(part=part, gemm=gemm, calls=calls) for (part, gemm), calls in counted.items()]


def step_attention(model: ModelConfig, size: StepSize) -> list[AttentionCore]:
    """Return the attention of a step without its projections; equal layers are one entry."""
    shape = AttentionShape(
        batch_size=size.micro_batch_size,
        seq_len=size.seq_len,
        num_heads=model.num_heads,
        num_kv_heads=model.num_heads if model.mla else model.kv_heads,
        qk_head_dim=model.query_head_dim,
        v_head_dim=model.value_head_dim,
    )
    layers = Counter((parts.ATTENTION, window) for window in model.layer_windows)
    if model.mtp_layers:
        layers[parts.HEAD, model.layer_windows[-1]] += model.mtp_layers
    return [
        AttentionCore(part=part, shape=shape, window=window, calls=calls * size.micro_batches)
        for (part, window), calls in layers.items()
    ]


def _layer(
    model: ModelConfig, tokens: int, *, sparse: bool, rows: tuple[int, ...] | None
) -> Iterator[tuple[str, Gemm]]:
    """Yield the forward products of one layer with their parts."""
    yield from _named(parts.ATTENTION, attention_gemms(model, tokens))
    if not sparse:
        yield from _named(parts.DENSE_FFN, dense_gemms(model, tokens))
        return
    yield from _named(parts.ROUTER, router_gemms(model, tokens))
    yield from _named(parts.EXPERTS, expert_gemms(model, tokens, rows))
    yield from _named(parts.SHARED_EXPERTS, shared_expert_gemms(model, tokens))


def _named(part: str, gemms: Iterable[Gemm]) -> Iterator[tuple[str, Gemm]]:
    return ((part, gemm) for gemm in gemms)
