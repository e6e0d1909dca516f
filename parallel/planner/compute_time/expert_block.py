"""Seconds of the routed experts of one rank: permute, FC1, activation, FC2, unpermute."""

from dataclasses import dataclass

from parallel.hardware.card import Card
from parallel.planner.compute_time.casts import operand_cast_seconds
from parallel.planner.compute_time.grouped_gemm import (
    ExpertRows,
    grouped_gemm_seconds,
    grouped_wgrad_seconds,
)
from parallel.planner.compute_time.memory_bound import activation_seconds, gather_seconds

_BF16 = 2.0


@dataclass(frozen=True, kw_only=True)
class ExpertBlock:
    """The experts of one layer on one rank."""

    hidden: int
    ffn: int
    """Inner size of one expert on this rank (expert tensor parallelism cuts it)."""
    rows: ExpertRows
    tokens: float
    """Rows that the unpermuted output has: the rank's tokens, before or after dispatch."""
    entries: float
    """(token, expert) pairs that are sorted and gathered: the rank's rows, and those of other ranks
    where every rank sees all tokens."""
    looped: bool
    """Whether experts' products run one after another (Transformer Engine), not in one call."""
    gated: bool = True
    """Whether FC1 gives a gate and a value (SwiGLU)."""

    @property
    def fc1_columns(self) -> int:
        """Columns of FC1's weight."""
        return 2 * self.ffn if self.gated else self.ffn


def expert_forward_seconds(
    card: Card, block: ExpertBlock, precision: str, *, repetitions: int | None = None
) -> float:
    """Return the seconds of one expert block's forward pass, without router and dispatch."""
    rows = block.rows
    fc1, fc2 = block.fc1_columns, block.ffn
    products = sum(
        grouped_gemm_seconds(
            card, rows, columns, depth, precision, looped=block.looped, repetitions=repetitions
        )
        for columns, depth in ((fc1, block.hidden), (block.hidden, fc2))
    )
    casts = operand_cast_seconds(card, rows.total * (block.hidden + fc2), precision)
    factor = card.kernels.machine_factor(expert_kind(precision, backward=False))
    return factor * (products + casts + _moving_seconds(card, block))


def expert_kind(precision: str, *, backward: bool) -> str:
    """Return the kind of kernel that a machine's factor is kept for."""
    return f"experts.{'backward' if backward else 'forward'}.{precision}"


def _moving_seconds(card: Card, block: ExpertBlock) -> float:
    """Return the seconds of permute, activation and weighted unpermute, BF16 in and out."""
    rows, hidden = block.rows.total, block.hidden
    activation = activation_seconds(card, rows, block.ffn, gated=block.gated)
    permute = gather_seconds(card, _BF16 * 2 * rows * hidden)
    unpermute = gather_seconds(card, _BF16 * hidden * (rows + block.tokens))
    sorting = card.kernels.routing_seconds + block.entries * card.kernels.routing_entry_seconds
    return sorting + permute + activation + unpermute


def expert_backward_seconds(card: Card, block: ExpertBlock, precision: str) -> float:
    """Return the seconds of one expert block's backward pass, weights' gradients included."""
    rows, hidden = block.rows, block.hidden
    fc1, fc2 = block.fc1_columns, block.ffn
    seconds = 0.0
    for columns, depth in ((fc1, hidden), (hidden, fc2)):
        seconds += grouped_gemm_seconds(card, rows, depth, columns, precision, looped=block.looped)
        seconds += grouped_wgrad_seconds(card, rows, columns, depth, precision, looped=block.looped)
        seconds += operand_cast_seconds(card, rows.total * columns, precision, transposed=True)
    activation = activation_seconds(card, rows.total, fc2, gated=block.gated, backward=True)
    gathers = 2 * gather_seconds(card, _BF16 * 2 * rows.total * hidden)
    factor = card.kernels.machine_factor(expert_kind(precision, backward=True))
    return factor * (seconds + activation + gathers)
