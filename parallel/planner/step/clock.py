"""Seconds of kernels and links of one card, in the forms that a layer asks for.

Shapes that many layouts share are timed once. All seconds are of one rank and one micro-batch.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from parallel.errors import ParallelError
from parallel.hardware.card import Card
from parallel.hardware.links import Links
from parallel.planner.communication_time.collectives import (
    all_gather_seconds,
    reduce_scatter_seconds,
    send_recv_seconds,
)
from parallel.planner.communication_time.expert_exchange import (
    Exchange,
    ExchangeSizes,
    exchange_seconds,
)
from parallel.planner.compute_time.attention import AttentionShape, attention_seconds
from parallel.planner.compute_time.casts import operand_cast_seconds
from parallel.planner.compute_time.expert_block import (
    ExpertBlock,
    expert_backward_seconds,
    expert_forward_seconds,
)
from parallel.planner.compute_time.gemm import MAIN_GRADIENT_BYTES, gemm_seconds
from parallel.planner.compute_time.memory_bound import stream_seconds
from parallel.planner.step.parameters import StepParameters, step_parameters, training_card
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision

MatrixPrecision = Literal["fp32", "bf16", "fp8", "fp8-blockwise", "mxfp8"]
Both = tuple[float, float]
"""Seconds forward and backward."""
_RECIPES: dict[str, MatrixPrecision] = {
    "none": "bf16", "delayed": "fp8", "current": "fp8", "blockwise": "fp8-blockwise",
    "mxfp8": "mxfp8",
}  # fmt: skip


@dataclass(frozen=True)
class Clock:
    """Times what a layer does on one card in one precision."""

    cold_card: Card
    """As its kernels were timed alone."""
    precision: Precision
    fitted: StepParameters = field(default_factory=step_parameters)
    """What a step adds on an accelerator."""
    _products: dict[Hashable, Both] = field(default_factory=dict, compare=False)
    """Those that were timed, by shape."""
    _blocks: dict[ExpertBlock, Both] = field(default_factory=dict, compare=False)

    @cached_property
    def parameters(self) -> StepParameters:
        """What a step adds on this card."""
        return self.fitted.on(self.cold_card)

    @cached_property
    def card(self) -> Card:
        """The card as its kernels run in a step."""
        return training_card(self.cold_card, self.parameters)

    @cached_property
    def links(self) -> Links:
        """The card's links.

        Raises:
            ParallelError: Its file has none.
        """
        if self.card.links is None:
            raise ParallelError(f"gpu {self.card.name}: its file has no [links]: add the section")
        return self.card.links

    @property
    def matrix(self) -> MatrixPrecision:
        """The precision of a layer's matrix products."""
        return "fp32" if self.precision.dtype == "fp32" else _RECIPES[self.precision.fp8]

    def traffic(self, elements: float, num_bytes: Both) -> Both:
        """Return the seconds of kernels that only move so many bytes for each element."""
        return (
            stream_seconds(self.card, elements * num_bytes[0]),
            stream_seconds(self.card, elements * num_bytes[1]),
        )

    def product(self, m: float, n: float, k: float, precision: MatrixPrecision) -> Both:
        """Return the seconds of y[m, n] = x[m, k] w[n, k]^T, and of its two gradients."""
        key = (m, n, k, precision)
        if key not in self._products:
            self._products[key] = (
                gemm_seconds(self.card, m, n, k, precision),
                gemm_seconds(self.card, m, k, n, precision)
                + gemm_seconds(self.card, n, k, m, precision, output_bytes=MAIN_GRADIENT_BYTES),
            )
        return self._products[key]

    def experts(self, block: ExpertBlock) -> Both:
        """Return the seconds of one rank's routed experts."""
        if block not in self._blocks:
            self._blocks[block] = (
                expert_forward_seconds(self.card, block, self.matrix),
                expert_backward_seconds(self.card, block, self.matrix),
            )
        return self._blocks[block]

    def casts(self, inputs: float, gradients: float) -> Both:
        """Return the seconds in which a product's operands become FP8 (weights: once a step).

        Args:
            inputs: Elements of the input, with a copy for the weight's gradient where the
                architecture needs one.
            gradients: Elements of the output's gradient.
        """
        known = self.precision.fp8 in ("delayed", "blockwise", "mxfp8")
        forward, backward = (
            operand_cast_seconds(
                self.card, elements, self.matrix, transposed=True, amax_known=known
            )
            for elements in (inputs, gradients)
        )
        return forward, backward

    def attention(self, work: Workload, window: int | None) -> Both:
        """Return the seconds of fused core attention."""
        shape, layout = work.shape, work.layout
        attention = AttentionShape(
            batch=work.batch.micro_batch_size,
            seq=work.batch.seq_len,
            heads=shape.num_heads // layout.tp,
            kv_heads=work.kv_heads,
            qk_dim=shape.qk_head_dim,
            v_dim=shape.v_head_dim,
            window=window,
            precision="fp32" if self.matrix == "fp32" else "bf16",
            shards=layout.cp,
        )
        return (
            attention_seconds(self.card, attention),
            attention_seconds(self.card, attention, backward=True),
        )

    def gather(self, num_bytes: float, ranks: int, stride: int = 1) -> float:
        """Return the seconds of an all-gather; members of the group are `stride` ranks apart."""
        return all_gather_seconds(self.links, num_bytes, ranks, self._in_domain(stride))

    def scatter(self, num_bytes: float, ranks: int, stride: int = 1) -> float:
        """Return the seconds of a reduce-scatter."""
        return reduce_scatter_seconds(self.links, num_bytes, ranks, self._in_domain(stride))

    def send(self, work: Workload) -> float:
        """Return the seconds of one micro-batch's activations to the next stage."""
        num_bytes = work.residual_tokens * work.shape.hidden_size * work.precision.element_bytes
        ranks_of_stage = work.placement.num_ranks // work.layout.pp
        return send_recv_seconds(
            self.links, num_bytes, same_domain=ranks_of_stage < self.links.domain_size
        )

    def exchange(self, work: Workload) -> Exchange:
        """Return the seconds in which tokens reach their experts' ranks and come back."""
        shape, layout = work.shape, work.layout
        sizes = ExchangeSizes(
            tokens=work.residual_tokens,
            hidden=shape.hidden_size,
            top_k=shape.top_k,
            experts=shape.num_experts,
            groups=shape.expert_groups,
            groups_per_token=shape.groups_per_token,
            ranks=layout.ep,
            ranks_per_domain=max(1, min(layout.ep, self._in_domain(layout.expert_tp))),
            expert_tp=layout.expert_tp,
            dispatch_fp8=False,
            imbalance=work.rank_imbalance,
        )
        alone = exchange_seconds(self.links, sizes, layout.exchange_library)
        stretch = self.parameters.exchange_stretch
        return replace(
            alone,
            dispatch_seconds=stretch * alone.dispatch_seconds,
            combine_seconds=stretch * alone.combine_seconds,
        )

    def _in_domain(self, stride: int) -> int:
        return max(1, self.links.domain_size // stride)
