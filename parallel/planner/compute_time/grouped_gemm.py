"""Seconds of the products of many experts in one call, each with rows of its own.

As `gemm.py`, with the tiles of all experts in the same waves. An expert with few rows still fills
whole tiles and reads its whole weight: that is what small and uneven experts cost.
"""

from dataclasses import dataclass
from math import ceil

from parallel.hardware.card import Card
from parallel.planner.compute_time.gemm import (
    OPERAND_BYTES,
    limited_seconds,
    matrix_parameters,
    tile_seconds,
    usable_tiles,
)

_GRADIENT_BYTES = 8.0
"""An fp32 main gradient is read and written."""


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
    repetitions: int | None = None,
) -> float:
    """Return the seconds of `y_e[m_e, n] = x_e[m_e, k] w_e[k, n]` for all experts e."""
    total = rows.total
    if min(total, n, k) <= 0:
        return 0.0
    parameters = matrix_parameters(card, precision)
    best = float("inf")
    for tile in usable_tiles(card, parameters):
        columns = ceil(n / tile[1])
        count = sum(number * ceil(m / tile[0]) for number, m in rows.groups) * columns
        one = tile_seconds(card, parameters, precision, tile, k) / parameters.grouped_efficiency
        best = min(best, ceil(count / card.rates.sms) * (one + parameters.tile_seconds))
    moved = OPERAND_BYTES[precision] * k * (total + n * rows.busy_experts) + 2.0 * total * n
    return limited_seconds(
        card, precision, 2.0 * total * n * k, best, moved, repetitions, streamed=True
    )


def grouped_wgrad_seconds(
    card: Card,
    rows: ExpertRows,
    n: float,
    k: float,
    precision: str,
    *,
    repetitions: int | None = None,
) -> float:
    """Return the seconds of `dw_e[n, k] += dy_e[m_e, n]^T x_e[m_e, k]` into fp32 gradients."""
    total = rows.total
    if min(total, n, k) <= 0:
        return 0.0
    parameters = matrix_parameters(card, precision)
    experts = rows.busy_experts
    best = float("inf")
    for tile in usable_tiles(card, parameters):
        count = experts * ceil(n / tile[0]) * ceil(k / tile[1])
        one = tile_seconds(card, parameters, precision, tile, total / experts)
        one /= parameters.grouped_efficiency
        best = min(best, ceil(count / card.rates.sms) * (one + parameters.tile_seconds))
    moved = OPERAND_BYTES[precision] * total * (n + k) + _GRADIENT_BYTES * n * k * experts
    return limited_seconds(
        card, precision, 2.0 * total * n * k, best, moved, repetitions, streamed=True
    )
