"""What a board does during the terms of a step: the seconds that energy is counted from."""

from collections import defaultdict
from collections.abc import Mapping

from parallel.hardware.power import Phase

PHASE_OF_TERM: Mapping[str, Phase] = {
    "matmul": "matrix_product",
    "expert_matmul": "matrix_product",
    "recomputation": "matrix_product",
    "attention": "attention",
    "memory_bound": "memory_bound",
    "fp8_cast": "memory_bound",
    "optimizer": "memory_bound",
    "tensor_parallel": "communication",
    "context_parallel": "communication",
    "expert_exchange": "communication",
    "host": "waiting",
    "waiting": "waiting",
}
"""By the terms of a `StepBreakdown`."""


def phase_seconds(terms: Mapping[str, float]) -> dict[Phase, float]:
    """Return the seconds of each phase; they add up to those of the terms."""
    seconds = defaultdict[Phase, float](float)
    for term, value in terms.items():
        seconds[PHASE_OF_TERM[term]] += max(0.0, value)
    return dict(seconds)
