"""Blending sources: sample i of the run -> (source, ordinal within it), by arithmetic.

Weights become integer shares of a period by largest remainders (Hamilton), so that each source's
share is off by less than 1 / PERIOD; weights with up to four decimals are met exactly. Inside the
period the shares are spread by Tijdeman's rule ("The chairman assignment problem", Discrete
Mathematics 32, 1980), so that after any number of samples each of K sources is within
1 - 1 / (2 K - 2) samples of its exact share. No index files, no state, stable under extension.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError

PERIOD = 10_000

Indices = NDArray[np.int64]


def apportion(weights: Mapping[str, float]) -> dict[str, int]:
    """Return integer shares of a period that sum to PERIOD (or to a divisor of it).

    Raises:
        DataError: No weight is positive, or one is too small to get a share.
    """
    total = sum(weights.values())
    if not total > 0 or not math.isfinite(total):
        raise DataError(f"weights {dict(weights)}: at least one must be positive, all finite")
    exact = {name: weight / total * PERIOD for name, weight in weights.items()}
    shares = {name: math.floor(share + 1e-9) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: PERIOD - sum(shares.values())]:
        shares[name] += 1
    for name, share in shares.items():
        if weights[name] > 0 and share == 0:
            raise DataError(
                f"weight of source {name!r} is below 1/{PERIOD} of all: raise it or set it to 0"
            )
    divisor = math.gcd(*shares.values())
    return {name: share // divisor for name, share in shares.items()}


def interleave(shares: Sequence[int]) -> Indices:
    """Return the source of each sample of one period, int64 [sum of shares].

    A source's j-th sample may come once its exact share has grown to j - 1 + 1 / slack, and must
    before it reaches j + 1 - 1 / slack; of those that may, the most urgent comes first.
    """
    period = sum(shares)
    active = [source for source, share in enumerate(shares) if share]
    slack = 2 * max(len(active) - 1, 1)
    waiting: list[list[tuple[float, int]]] = [[] for _ in range(period + 1)]
    for source in active:
        share = shares[source]
        for before in range(share):
            first_position = -(-period * (slack * before + 1) // (slack * share))
            waiting[first_position].append(((slack * (before + 1) - 1) * period / share, source))
    ready: list[tuple[float, int]] = []
    order = np.empty(period, dtype=np.int64)
    for position in range(1, period + 1):
        for sample in waiting[position]:
            heapq.heappush(ready, sample)
        order[position - 1] = heapq.heappop(ready)[1]
    return order


@dataclass(frozen=True)
class _Phase:
    """Samples from `start` on, until the next phase."""

    start: int
    order: Indices
    """Source of each sample in the period."""
    ranks: Indices
    """How many of the same source come before it in the period."""
    shares: Indices
    before: Indices
    """Samples of each source before `start`."""

    def counts(self, end: int) -> Indices:
        """Return the samples of each source before `end`."""
        periods, rest = divmod(end - self.start, self.order.size)
        partial = np.bincount(self.order[:rest], minlength=self.shares.size)
        total: Indices = self.before + periods * self.shares + partial
        return total


class Blend:
    """The source and ordinal of every sample of a run."""

    def __init__(
        self, names: Sequence[str], phases: Sequence[tuple[int, Mapping[str, float]]]
    ) -> None:
        """Lay out the phases.

        Args:
            names: All sources.
            phases: (first sample, weights) in rising order, the first from sample 0.

        Raises:
            DataError: A weight names no source, or weights cannot be apportioned.
        """
        self._phases: list[_Phase] = []
        before = np.zeros(len(names), dtype=np.int64)
        for start, weights in phases:
            unknown = sorted(set(weights) - set(names))
            if unknown:
                raise DataError(f"weights: no source {unknown[0]!r}; there are {', '.join(names)}")
            by_name = apportion(weights)
            shares = [by_name.get(name, 0) for name in names]
            if self._phases:
                before = self._phases[-1].counts(start)
            order = interleave(shares)
            self._phases.append(_Phase(start, order, _ranks(order), np.array(shares), before))
        self._starts = np.array([phase.start for phase in self._phases])

    def locate(self, positions: Indices) -> tuple[Indices, Indices]:
        """Return source and ordinal within it of each sample, int64 [positions] each."""
        sources, ordinals = np.empty_like(positions), np.empty_like(positions)
        phase_of = np.searchsorted(self._starts, positions, side="right") - 1
        for index in np.unique(phase_of):
            phase, here = self._phases[index], phase_of == index
            periods, offsets = np.divmod(positions[here] - phase.start, phase.order.size)
            source = phase.order[offsets]
            sources[here] = source
            ordinals[here] = (
                phase.before[source] + periods * phase.shares[source] + phase.ranks[offsets]
            )
        return sources, ordinals

    def phases(self, end: int) -> list[tuple[int, list[int]]]:
        """Return first sample and shares of the phases that decide the samples before `end`."""
        return [(p.start, p.shares.tolist()) for p in self._phases if p.start < max(end, 1)]

    def counts(self, end: int) -> Indices:
        """Return how many samples of each source come before sample `end`, int64 [sources]."""
        phase = self._phases[int(np.searchsorted(self._starts, end, side="right")) - 1]
        return phase.counts(end)


def _ranks(order: Indices) -> Indices:
    ranks = np.empty_like(order)
    for source in np.unique(order):
        here = order == source
        ranks[here] = np.arange(here.sum())
    return ranks
