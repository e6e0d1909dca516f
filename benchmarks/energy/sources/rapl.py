"""Joules of a node's CPU packages and memory from RAPL, through Linux powercap."""

import contextlib
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.energy.source import (
    Clock,
    Counter,
    SourceInfo,
    SourceLostError,
    SourceUnavailableError,
    boot_id,
)
from benchmarks.energy.sources.socket_counters import SocketCounters
from parallel.measurement.units import MICROJOULE, MICROWATT

POWERCAP = Path("/sys/class/powercap")
# Updated about every millisecond (Intel SDM volume 3B, section 15.10).
RAPL_RESOLUTION_S = 1e-3
# No CPU package or its memory draws more, W; used where the kernel states no limit.
MAX_PACKAGE_WATTS = 1000.0
# A zone usually wraps at 262 kJ: more than four minutes at that power.
POLL_S = 30.0


class RaplSource:
    """Sum of all packages and, where they have one, their DRAM zones (not `psys`).

    A counter that several zones of a socket repeat counts once.
    """

    def __init__(self, hostname: str, root: Path = POWERCAP, clock: Clock = time.monotonic) -> None:
        """Open every zone.

        Raises:
            SourceUnavailableError: No RAPL here, or it may not be read.
        """
        sockets = _sockets(root)
        if not sockets:
            raise SourceUnavailableError(f"no RAPL zones under {root} (a virtual machine has none)")
        self._device = f"CPU of {hostname} ({boot_id(hostname)})"
        self._sockets = [_open_socket(zones, clock) for zones in sockets]
        self._lock = threading.Lock()
        zones = [zone for socket in self._sockets for zone in socket.zones]
        self._names = {zone: _read_text(zone / "name") for zone in zones}
        self._limits = {zone: _max_watts(zone) for zone in zones}

    @property
    def info(self) -> SourceInfo:
        """What it reads, and its resolution."""
        counted = [
            zone
            for socket in self._sockets
            for zone in (socket.zones[:1] if socket.are_one else socket.zones)
        ]
        limits = [self._limits[zone] for zone in counted]
        has_dram = "dram" in self._names.values()
        return SourceInfo(
            name="rapl",
            kind="measured",
            boundary="CPU packages and DRAM" if has_dram else "CPU packages",
            device=self._device,
            scope="node",
            resolution_s=RAPL_RESOLUTION_S,
            max_power_watts=sum(limit for limit in limits if limit) if all(limits) else None,
            note="; ".join(self._repeated_counters()) or None,
        )

    def _repeated_counters(self) -> list[str]:
        repeated = [socket.zones for socket in self._sockets if socket.are_one]
        return [
            f"{', '.join(f'{self._names[zone]} ({zone.name})' for zone in zones)}: names of one"
            " counter, which counts once"
            for zones in repeated
        ]

    def read_joules(self) -> float:
        """Return joules since the first reading, all counters together.

        Raises:
            SourceLostError: A zone can no longer be read, or was reset.
        """
        try:
            with self._lock:
                return sum(
                    socket.add([_read_count(zone) for zone in socket.zones_to_read])
                    for socket in self._sockets
                )
        except (OSError, ValueError) as error:
            raise SourceLostError(f"RAPL: {error}") from None

    def keep_alive(self, interval_s: float = POLL_S) -> None:
        """Read every `interval_s` (s) from a thread, so that no wrap is missed in a long step."""

        def poll() -> None:
            while True:
                time.sleep(interval_s)
                with contextlib.suppress(SourceLostError):
                    self.read_joules()

        threading.Thread(target=poll, daemon=True, name="rapl").start()


def repeats_counters(root: Path = POWERCAP) -> bool:
    """Return whether zones that read the same counter stand side by side, as far as may be read."""
    try:
        sockets = [_open_socket(zones, time.monotonic) for zones in _sockets(root)]
    except (OSError, SourceUnavailableError):
        return False
    return any(socket.are_one for socket in sockets)


def _sockets(root: Path) -> list[list[Path]]:
    """Return each socket's package zones, and its DRAM zones; there may be one for each die.

    `intel-rapl-mmio` lists the same packages again: skipped.
    """
    sockets: dict[tuple[str, str], list[Path]] = {}
    for package in sorted(root.glob("intel-rapl:*")):
        name = _read_text(package / "name")
        if package.name.count(":") != 1 or not name.startswith("package"):
            continue
        socket = re.sub(r"-die-\d+$", "", name)
        sockets.setdefault((socket, "package"), []).append(package)
        for part in sorted(root.glob(f"{package.name}:*")):
            if _read_text(part / "name") == "dram":
                sockets.setdefault((socket, "dram"), []).append(part)
    return list(sockets.values())


def _open_socket(zones: Sequence[Path], clock: Clock) -> SocketCounters:
    counters = [_open(zone, _max_watts(zone) or MAX_PACKAGE_WATTS, clock) for zone in zones]
    span = int(_read_text(zones[0] / "max_energy_range_uj"))
    socket = SocketCounters(zones, counters, span)
    socket.compare([_read_count(zone) for zone in socket.zones_to_read])
    return socket


def _open(zone: Path, max_watts: float, clock: Clock) -> Counter:
    try:
        span = int(_read_text(zone / "max_energy_range_uj"))
        _read_count(zone)
    except PermissionError:
        raise SourceUnavailableError(
            f"{zone / 'energy_uj'} may be read by root only (since Platypus, CVE-2020-8694):"
            " run as root, or let an administrator chmod it"
        ) from None
    except (OSError, ValueError) as error:
        raise SourceUnavailableError(f"{zone}: {error}") from None
    # The counter runs from 0 to its range inclusive.
    return Counter(
        unit_joules=MICROJOULE,
        moduli=(span + 1,),
        max_watts=max_watts,
        clock=clock,
        max_gap_s=span * MICROJOULE / max_watts,
    )


def _max_watts(zone: Path) -> float | None:
    try:
        return int(_read_text(zone / "constraint_0_max_power_uw")) * MICROWATT or None
    except (OSError, ValueError):
        return None


def _read_count(zone: Path) -> int:
    return int(_read_text(zone / "energy_uj"))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
