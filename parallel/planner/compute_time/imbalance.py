"""How unevenly tokens reach experts, and what the busiest rank of an expert-parallel group gets.

A layer waits for its busiest rank. Loads are in units of the mean load of an expert, so that they
sum to the number of experts; no expert gets more than every token, `experts / top_k`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal

from parallel.planner.compute_time.grouped_gemm import ExpertRows

_DRAWS = 24
_LARGEST_SHARE = 0.8
"""Largest sample of the power law, as a share of the tokens (AIConfigurator's generator)."""
_PROFILE_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class Imbalance:
    """How tokens choose experts."""

    kind: Literal["forced", "power-law", "hot-expert"] = "forced"
    exponent: float = 1.2
    """Of a power law of loads: 1.01 and 1.2 are what AIConfigurator takes for natural routing."""
    hot: float = 1.0
    """Load of a hot expert over the mean; the others share the rest evenly."""


NATURAL = Imbalance(kind="power-law", exponent=1.01)
"""Loads of routers that choose freely."""


def expert_loads(imbalance: Imbalance, experts: int, top_k: int, tokens: float) -> list[float]:
    """Return the load of each expert over the mean, largest first.

    A power law's loads are its quantiles at the middles of `experts` equal steps.
    """
    if imbalance.kind == "forced" or experts == 1:
        return [1.0] * experts
    if imbalance.kind == "hot-expert":
        hot = min(imbalance.hot, experts / top_k)
        return [hot] + [(experts - hot) / (experts - 1)] * (experts - 1)
    power = 1.0 - imbalance.exponent
    top = max(2.0, _LARGEST_SHARE * tokens) ** power - 1.0
    samples = [(1.0 + top * (i + 0.5) / experts) ** (1.0 / power) for i in range(experts)]
    return _capped(samples, experts / top_k)


def _capped(samples: Sequence[float], most: float) -> list[float]:
    """Return loads in proportion to samples, mean 1, none above `most`, largest first."""
    ordered = sorted(samples, reverse=True)
    full = 0
    while full < len(ordered):
        left = len(ordered) - full * most
        scale = left / sum(ordered[full:])
        if ordered[full] * scale <= most:
            return [most] * full + [sample * scale for sample in ordered[full:]]
        full += 1
    return [1.0] * len(ordered)


def busiest_rank_rows(
    imbalance: Imbalance, *, experts: int, top_k: int, ep: int, tokens: float
) -> ExpertRows:
    """Return the rows of the busiest rank's experts, mean of random placements of experts.

    `tokens` are those of the whole expert-parallel group. Placements are drawn with a fixed seed.
    """
    loads = _busiest_loads(imbalance, experts, top_k, ep, tokens)
    mean_rows = tokens * top_k / experts
    size = max(1, -(-len(loads) // _PROFILE_GROUPS))
    groups = [loads[start : start + size] for start in range(0, len(loads), size)]
    return ExpertRows(tuple((len(group), mean_rows * sum(group) / len(group)) for group in groups))


def busiest_rank_share(
    imbalance: Imbalance, *, experts: int, top_k: int, ep: int, tokens: float
) -> float:
    """Return the busiest rank's rows over the mean rank's; 1 is even."""
    loads = _busiest_loads(imbalance, experts, top_k, ep, tokens)
    return sum(loads) / len(loads)


@lru_cache(maxsize=1024)
def _busiest_loads(
    imbalance: Imbalance, experts: int, top_k: int, ep: int, tokens: float
) -> tuple[float, ...]:
    """Return the loads of the busiest rank's experts, largest first, mean of all draws."""
    loads = expert_loads(imbalance, experts, top_k, tokens)
    if ep == 1 or imbalance.kind == "forced":
        return tuple(loads[: experts // ep])
    generator = Random(0)
    sums = [0.0] * (experts // ep)
    for _ in range(_DRAWS):
        generator.shuffle(loads)
        busiest = max(_ranks(loads, ep), key=sum)
        for place, load in enumerate(sorted(busiest, reverse=True)):
            sums[place] += load / _DRAWS
    return tuple(sums)


def _ranks(loads: Sequence[float], ep: int) -> list[Sequence[float]]:
    size = len(loads) // ep
    return [loads[rank * size : (rank + 1) * size] for rank in range(ep)]
