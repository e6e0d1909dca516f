"""Routed experts of one layer: grouped products, permutations, and the exchange of tokens."""

from parallel.planner.communication_time.overlap import (
    LayerSeconds,
    Sharing,
    combined_pass_seconds,
)
from parallel.planner.compute_time.casts import operand_cast_seconds
from parallel.planner.compute_time.expert_block import ExpertBlock
from parallel.planner.compute_time.grouped_gemm import ExpertRows
from parallel.planner.compute_time.imbalance import NATURAL, busiest_rank_rows
from parallel.planner.step.clock import Clock
from parallel.planner.step.seconds import TermSeconds
from parallel.planner.workload import Workload

CAST_KERNELS = {"none": 0, "delayed": 1, "current": 4, "blockwise": 1, "mxfp8": 1}
"""Kernels that cast one operand of one expert: current scaling looks for the largest first."""


def add_experts(seconds: TermSeconds, clock: Clock, work: Workload) -> None:
    """Add permutations, products and activation of the busiest rank's experts."""
    shape, layout = work.shape, work.layout
    block = ExpertBlock(
        hidden=shape.hidden_size,
        ffn=shape.expert_ffn_hidden_size // layout.expert_tp,
        rows=_rows(work),
        tokens=work.residual_tokens * layout.expert_tp,
        entries=work.routed_tokens,
        gated=shape.is_gated,
        looped=work.precision.kernels == "te",
    )
    precision = clock.matrix
    forward, backward = clock.experts(block)
    if precision != "bf16":
        # Copies of the inputs for the weights' gradients.
        columns = block.rows.total * (block.hidden + block.ffn)
        backward += operand_cast_seconds(clock.card, columns, precision, transposed=True)
    if block.looped:
        between = clock.parameters.expert_gap_seconds * (shape.num_experts // layout.ep)
        casts = CAST_KERNELS[work.precision.fp8]
        forward += between * (2 + 2 * casts)
        backward += between * (4 + 2 * casts)
    seconds.add("expert_matmul", forward, backward)


def _rows(work: Workload) -> ExpertRows:
    shape, layout = work.shape, work.layout
    experts = shape.num_experts // layout.ep
    if work.execution.routing != "natural":
        return ExpertRows.even(experts, work.routed_tokens)
    tokens = work.residual_tokens * layout.ep * layout.expert_tp
    return busiest_rank_rows(
        NATURAL, experts=shape.num_experts, top_k=shape.top_k, ep=layout.ep, tokens=tokens
    )


def add_exchange(
    seconds: TermSeconds, clock: Clock, work: Workload, attention: TermSeconds
) -> None:
    """Add what compute does not hide of the exchange, both ways and both passes.

    Args:
        seconds: Of the whole layer so far.
        clock: Kernels and links of the card.
        work: The job.
        attention: Of the layer's attention alone.
    """
    layout = work.layout
    if layout.ep * layout.expert_tp == 1:
        return
    exchange = clock.exchange(work)
    there, back = exchange.dispatch_seconds, exchange.combine_seconds
    if not layout.overlap_experts:
        seconds.add("expert_exchange", there + back, there + back)
        return
    layer = LayerSeconds(
        attention_forward=attention.forward_seconds,
        attention_backward=attention.backward_seconds,
        experts_forward=seconds.forward_seconds - attention.forward_seconds,
        experts_backward=seconds.backward_seconds - attention.backward_seconds,
        dispatch_forward=there,
        combine_forward=back,
        dispatch_backward=back,
        combine_backward=there,
    )
    compute = seconds.forward_seconds + seconds.backward_seconds
    sharing = Sharing(sms_taken=exchange.sms, sms=clock.card.rates.sms)
    exchanged = 2 * (there + back)
    hidden = compute + exchanged - combined_pass_seconds(layer, sharing)
    exposed = exchanged - clock.parameters.hidden_share * hidden
    seconds.add("expert_exchange", exposed / 2, exposed / 2)
