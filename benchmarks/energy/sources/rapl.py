"""Joules of a node's CPU packages and memory from RAPL, through Linux powercap."""

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
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
        self._device = f"CPU of {hostname} ({boot_id(hostname)})"
        with _unavailable_if_unread():
            self._sockets = _open_sockets(root, clock)
            zones = [zone for socket in self._sockets for zone in socket.zones]
            self._names = {zone: _read_text(zone / "name") for zone in zones}
        if not zones:
            raise SourceUnavailableError(f"no RAPL zones under {root} (a virtual machine has none)")
        self._limits = {zone: _max_watts(zone) for zone in zones}
        self._lock = threading.Lock()

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
        return any(socket.are_one for socket in _open_sockets(root, time.monotonic))
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _unavailable_if_unread() -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise SourceUnavailableError(
            f"{error.filename} may be read by root only (since Platypus, CVE-2020-8694):"
            " run as root, or let an administrator chmod it"
        ) from None
    except OSError as error:
        raise SourceUnavailableError(
            f"{error.filename}: {error.strerror}: a container may hide it"
        ) from None
    except ValueError as error:
        raise SourceUnavailableError(str(error)) from None


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


def _open_sockets(root: Path, clock: Clock) -> list[SocketCounters]:
    return [_open_socket(zones, clock) for zones in _sockets(root)]


def _open_socket(zones: Sequence[Path], clock: Clock) -> SocketCounters:
    spans = [_read_span(zone) for zone in zones]
    counters = [_open(zone, span, clock) for zone, span in zip(zones, spans, strict=True)]
    socket = SocketCounters(zones, counters, spans[0])
    socket.compare([_read_count(zone) for zone in socket.zones_to_read])
    return socket


def _open(zone: Path, span: int, clock: Clock) -> Counter:
    max_watts = _max_watts(zone) or MAX_PACKAGE_WATTS
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
        watts = _read_number(zone / "constraint_0_max_power_uw") * MICROWATT
    except (OSError, ValueError):
        return None
    return watts if watts > 0 else None


def _read_span(zone: Path) -> int:
    path = zone / "max_energy_range_uj"
    span = _read_number(path)
    if span <= 0:
        raise ValueError(f"{path} reads {span}: no counter's range")
    return span


def _read_count(zone: Path) -> int:
    return _read_number(zone / "energy_uj")


def _read_number(path: Path) -> int:
    text = _read_text(path)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{path} reads {text[:40]!r}, not a number") from None


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        # A failed read, unlike a failed open, does not name its file.
        raise OSError(error.errno, error.strerror, str(path)) from None
    if not text:
        raise ValueError(f"{path} is empty")
    return text
