"""What routing maps say: specialisation, and experts that go together; plain numbers.

Shapes: N sources, E experts.
"""

import math
from collections.abc import Sequence


def specialisation(counts: Sequence[Sequence[float]]) -> float | None:
    """Return how much of a choice's source its expert tells, 0 (nothing) to 1 (all).

    That is the mutual information of source and expert over the entropy of the source, with every
    source weighing the same. None for fewer than two sources that were read.

    Args:
        counts: Choices [N][E].
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
    """Return each source's load relative to the even share, [N][E]."""
    return [[x * len(row) / max(sum(row), 1) for x in row] for row in counts]


def affinity(together: Sequence[Sequence[float]], top_k: int) -> list[list[float]]:
    """Return how often two experts are chosen together over what chance would do, [E][E].

    Chance draws `top_k` different experts a token, each as often as it was chosen; the diagonal
    is 1.
    """
    experts = len(together)
    own = [together[i][i] for i in range(experts)]
    tokens = sum(own) / top_k
    # Of two different experts among K of E: K (K - 1) / (E (E - 1)), where K / E is each one's own.
    base = (top_k - 1) * experts / (top_k * (experts - 1)) if top_k > 1 else 1.0

    def ratio(i: int, j: int) -> float:
        expected = own[i] * own[j] / tokens * base if tokens else 0.0
        return together[i][j] / expected if expected else 1.0

    return [[1.0 if i == j else ratio(i, j) for j in range(experts)] for i in range(experts)]
