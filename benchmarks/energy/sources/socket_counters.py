"""The RAPL counters of one socket: one for each die, or one that every die's zone repeats."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.energy.source import Counter
from parallel.measurement.units import MICROJOULE

# What a socket of 500 W draws between two updates of its counter, 1 ms apart.
SLACK_JOULES = 0.5
# Zones that stayed equal over so many joules are one counter for good.
SETTLED_JOULES = 100.0


class SocketCounters:
    """The package zones of one socket, or its DRAM zones.

    Linux makes a zone for each die. AMD's dies repeat the socket's counter, which counts once;
    Intel's two-die packages have a counter for each die, which are summed. They are told apart by
    what they read: one counter read in turn gives numbers in order.
    """

    def __init__(self, zones: Sequence[Path], counters: Sequence[Counter], span: int) -> None:
        """Count the zones with `counters`, which run from 0 to `span` (µJ)."""
        self.zones = tuple(zones)
        self.are_one = len(zones) > 1
        """Whether all zones have read alike so far: names of one counter."""
        self._counters = tuple(counters)
        self._modulus = span + 1
        self._is_settled = len(zones) == 1

    @property
    def zones_to_read(self) -> tuple[Path, ...]:
        """Zones to read in this order: the first again at the end, as long as that tells more."""
        if not self._is_settled:
            return *self.zones, self.zones[0]
        return self.zones[:1] if self.are_one else self.zones

    def compare(self, counts: Sequence[int]) -> None:
        """Find out from readings of `zones_to_read` (µJ) whether the zones may be one counter."""
        if self._is_settled:
            return
        first, *others, last = counts
        slack = SLACK_JOULES / MICROJOULE
        moved = (last - first) % self._modulus
        if moved > self._modulus // 2:  # it fell, which is no wrap: a reset
            moved = 0
        # Each reading is at most as far from the first as the last one is, around a wrap as well.
        self.are_one = all(
            (count - first + slack) % self._modulus <= moved + 2 * slack for count in others
        )
        self._is_settled = not self.are_one

    def add(self, counts: Sequence[int]) -> float:
        """Add readings of `zones_to_read` (µJ); returns joules since the first ones."""
        self.compare(counts)
        joules = [
            counter.add(count) for counter, count in zip(self._counters, counts, strict=False)
        ]
        if self.are_one and joules[0] >= SETTLED_JOULES:
            self._is_settled = True
        return joules[0] if self.are_one else sum(joules)
