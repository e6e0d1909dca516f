"""Measures of routing maps in plain numbers: specialization, load by source, affinity of experts.

Shapes: N sources, E experts.
"""

import math
from collections.abc import Sequence


def specialization(counts: Sequence[Sequence[float]]) -> float | None:
    """Return how much an assignment's expert reveals of its source, 0 (nothing) to 1 (all).

    This is the mutual information of source and expert over the entropy of the source, with all
    sources weighted equally. None for fewer than two sources with assignments.

    Args:
        counts: Assignments [N][E].
    """
    rows = [[x / sum(row) for x in row] for row in counts if sum(row)]
    if len(rows) < 2:
        return None
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    divergence = sum(
        x * math.log(x / m) for row in rows for x, m in zip(row, mean, strict=True) if x
    )
    return divergence / len(rows) / math.log(len(rows))


def source_load(counts: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the load of each source relative to an even one, [N][E]."""
    return [[x * len(row) / max(sum(row), 1) for x in row] for row in counts]


def affinity(coactivation: Sequence[Sequence[float]], top_k: int) -> list[list[float]]:
    """Return how often two experts are chosen together, over what chance would give, [E][E].

    Chance draws `top_k` different experts per token, each as often as it was chosen; the diagonal
    is 1.

    Args:
        coactivation: Tokens routed to both experts, [E][E]; on the diagonal, to the one.
        top_k: Experts per token.
    """
    experts = len(coactivation)
    own = [coactivation[i][i] for i in range(experts)]
    tokens = sum(own) / top_k
    # Probability of two different experts among K of E: K (K - 1) / (E (E - 1)); of each: K / E.
    base = (top_k - 1) * experts / (top_k * (experts - 1)) if top_k > 1 else 1.0

    def ratio(i: int, j: int) -> float:
        expected = own[i] * own[j] / tokens * base if tokens else 0.0
        return coactivation[i][j] / expected if expected else 1.0

    return [[1.0 if i == j else ratio(i, j) for j in range(experts)] for i in range(experts)]
