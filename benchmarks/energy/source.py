"""What every energy source offers: a cumulative number of joules, and its origin."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmarks.errors import BenchmarkError
from parallel.measurement.measurement import Kind, Measurement

Clock = Callable[[], float]


class SourceUnavailableError(BenchmarkError):
    """A source is not available here; the message gives the reason and the remedy."""


class SourceLostError(RuntimeError):
    """A source can no longer be trusted: energy from here on is unknown."""


@dataclass(frozen=True, kw_only=True)
class EnergyOrigin:
    """Where joules come from: the source, what it covers, and whether they are measured."""

    source: str
    boundary: str | None = None
    kind: Kind | None = None
    """`None` where nothing was metered."""

    def energy(
        self, joules: float, quantization_joules: float | None, reason: str | None = None
    ) -> Measurement:
        """Return joules as a measurement.

        `quantization_joules` (J) is what the counter's resolution leaves uncertain; a modelled
        number has no counter, and takes none. `reason` is what limits the number.
        """
        uncertainty = quantization_joules if self.kind == "measured" else None
        return Measurement(
            value=joules, unit="J", uncertainty=uncertainty, reason=reason, **self.to_json()
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, one key for each field."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What a source reads, and its resolution."""

    name: str
    kind: Kind
    boundary: str
    device: str
    """Physical device read; equal for two ranks that would read the same counter."""
    resolution_s: float
    """Longest time between two updates of the counter, s."""
    max_power_watts: float | None
    """Upper bound of the power drawn, W; `None` where none is known."""
    scope: Literal["device", "node", "job"] = "device"
    """What one reading covers: this rank's device, its node, or the whole job."""
    note: str | None = None
    """How a modelled number is computed, or what a measured one includes."""

    @property
    def origin(self) -> EnergyOrigin:
        """The origin of joules read here."""
        return EnergyOrigin(source=self.name, boundary=self.boundary, kind=self.kind)


class EnergySource(Protocol):
    """A cumulative energy counter, or a model of one."""

    @property
    def info(self) -> SourceInfo:
        """What it reads, and its resolution."""

    def read_joules(self) -> float:
        """Return joules since some fixed moment; never decreases.

        Raises:
            SourceLostError: The device vanished or its counter was reset.
        """


class Counter:
    """Turns a hardware counter that wraps around into a number that never decreases.

    A fall is a wrap where the energy it implies is possible for the time that passed;
    otherwise the counter was reset and what it missed is unknown.
    """

    def __init__(
        self,
        *,
        unit_joules: float,
        moduli: tuple[int, ...],
        max_watts: float,
        clock: Clock,
        max_gap_s: float = math.inf,
    ) -> None:
        """Count in `unit_joules` (J), wrapping at one of `moduli` (counts)."""
        self._max_gap_s = max_gap_s
        self._unit_joules = unit_joules
        self._moduli = moduli
        self._max_watts = max_watts
        self._clock = clock
        self._last: tuple[int, float] | None = None
        self._joules = 0.0

    def add(self, count: int) -> float:
        """Add the counter's newest value; returns joules since the first one."""
        now = self._clock()
        if self._last is not None:
            self._joules += self._delta_joules(count, now - self._last[1])
        self._last = (count, now)
        return self._joules

    def _delta_joules(self, count: int, elapsed_s: float) -> float:
        last = self._last[0] if self._last else count
        if elapsed_s > self._max_gap_s:
            raise SourceLostError(
                f"no reading for {elapsed_s:.0f} s: the counter may have wrapped unseen"
            )
        if count >= last:
            return (count - last) * self._unit_joules
        # Accept up to twice the rated power, and a second of slack.
        possible = 2 * self._max_watts * (elapsed_s + 1)
        for modulus in self._moduli:
            joules = (count - last) % modulus * self._unit_joules
            if last < modulus and joules <= possible:
                return joules
        raise SourceLostError(
            f"the counter fell from {last} to {count}: it was reset (a driver reload does that)"
        )


def boot_id(hostname: str, path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return the boot id of this physical machine, or `hostname` where it is hidden.

    Two SLURM nodes or containers on one machine share its counters whatever their hostnames.
    """
    try:
        return path.read_text(encoding="ascii").strip() or hostname
    except (OSError, ValueError):
        return hostname
