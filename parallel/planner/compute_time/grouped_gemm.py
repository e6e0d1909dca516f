"""Seconds of the products of many experts, each with rows of its own: in one call or a loop.

In one call (CUTLASS, torch's `grouped_mm`) the tiles of all experts share waves. An expert with few
rows still fills whole tiles and reads its whole weight: that is what small and uneven experts cost.
Transformer Engine 2.11 loops: on B200 its grouped products take as long as the products of the
experts one after another (gemm_train_b200_te.csv: medians of both errors alike, -0.25 and -0.22).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from parallel.hardware.card import Card
from parallel.planner.compute_time.gemm import (
    MAIN_GRADIENT_BYTES,
    OPERAND_BYTES,
    gemm_seconds,
    limited_seconds,
    matrix_parameters,
    tile_steps,
)


@dataclass(frozen=True)
class ExpertRows:
    """Rows that the experts of one rank receive: (number of experts, rows of each of them)."""

    groups: tuple[tuple[int, float], ...]

    @classmethod
    def even(cls, experts: int, rows: float) -> "ExpertRows":
        """Return `rows` shared evenly by `experts`."""
        return cls(((experts, rows / experts),))

    @property
    def total(self) -> float:
        """Rows of all experts."""
        return sum(number * rows for number, rows in self.groups)

    @property
    def busy_experts(self) -> int:
        """Experts with any row."""
        return sum(number for number, rows in self.groups if rows > 0)


def grouped_gemm_seconds(
    card: Card,
    rows: ExpertRows,
    n: float,
    k: float,
    precision: str,
    *,
    looped: bool,
    repetitions: int | None = None,
) -> float:
    """Return the seconds of `y_e[m_e, n] = x_e[m_e, k] w_e[k, n]` for all experts e.

    `looped`: one product after another, as Transformer Engine does; else one call for all.
    """
    total = rows.total
    if min(total, n, k) <= 0:
        return 0.0
    if looped:
        return sum(
            number * gemm_seconds(card, m, n, k, precision, repetitions=repetitions)
            for number, m in rows.groups
        )
    outputs = [(number, m, n) for number, m in rows.groups]
    compute_s = _compute_seconds(card, precision, outputs, k)
    moved = OPERAND_BYTES[precision] * k * (total + n * rows.busy_experts) + 2.0 * total * n
    flops = 2.0 * total * n * k
    return limited_seconds(card, precision, flops, compute_s, moved, repetitions, streamed=True)


def grouped_wgrad_seconds(
    card: Card, rows: ExpertRows, n: float, k: float, precision: str, *, looped: bool
) -> float:
    """Return the seconds of `dw_e[n, k] += dy_e[m_e, n]^T x_e[m_e, k]` into fp32 gradients."""
    total = rows.total
    if min(total, n, k) <= 0:
        return 0.0
    if looped:
        return sum(
            number * gemm_seconds(card, n, k, m, precision, output_bytes=MAIN_GRADIENT_BYTES)
            for number, m in rows.groups
        )
    experts = rows.busy_experts
    compute_s = _compute_seconds(card, precision, [(experts, n, k)], total / experts)
    moved = OPERAND_BYTES[precision] * total * (n + k) + MAIN_GRADIENT_BYTES * n * k * experts
    flops = 2.0 * total * n * k
    return limited_seconds(card, precision, flops, compute_s, moved, None, streamed=True)


def _compute_seconds(
    card: Card, precision: str, outputs: Sequence[tuple[int, float, float]], depth: float
) -> float:
    """Return the seconds of one call's tiles in common waves, of the fastest tile.

    Args:
        card: The card.
        precision: Of the operands.
        outputs: How many, rows and columns of each kind of output.
        depth: Elements summed for each number of an output.
    """
    parameters = matrix_parameters(card, precision)
    best = float("inf")
    for tile_rows, columns, step_s in tile_steps(card, parameters, precision):
        count = sum(number * ceil(m / tile_rows) * ceil(n / columns) for number, m, n in outputs)
        one = step_s * depth / parameters.grouped_efficiency + parameters.tile_seconds
        best = min(best, ceil(count / card.rates.sms) * one)
    return best
