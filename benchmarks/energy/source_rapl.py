"""Joules of a node's CPU packages and memory from RAPL, through Linux powercap."""

import contextlib
import threading
import time
from pathlib import Path

from benchmarks.energy.source import (
    Clock,
    Counter,
    SourceInfo,
    SourceLostError,
    SourceUnavailableError,
    boot_id,
)
from parallel.measurement.units import MICROJOULE, MICROWATT

POWERCAP = Path("/sys/class/powercap")
# Updated about every millisecond (Intel SDM volume 3B, section 15.10).
RAPL_RESOLUTION_S = 1e-3
# No CPU package or its memory draws more, W; used where the kernel states no limit.
MAX_PACKAGE_WATTS = 1000.0
# A zone usually wraps at 262 kJ: more than four minutes at that power.
POLL_S = 30.0


class RaplSource:
    """Sum of all packages and, where they have one, their DRAM zones (not `psys`)."""

    def __init__(self, hostname: str, root: Path = POWERCAP, clock: Clock = time.monotonic) -> None:
        """Open every zone.

        Raises:
            SourceUnavailableError: No RAPL here, or it may not be read.
        """
        zones = _zones(root)
        if not zones:
            raise SourceUnavailableError(f"no RAPL zones under {root} (a virtual machine has none)")
        limits = [_max_watts(zone) for zone in zones]
        self._counters = {
            zone: _open(zone, limit or MAX_PACKAGE_WATTS, clock)
            for zone, limit in zip(zones, limits, strict=True)
        }
        self._lock = threading.Lock()
        has_dram = any(_read_text(zone / "name") == "dram" for zone in zones)
        self.info = SourceInfo(
            name="rapl",
            kind="measured",
            boundary="CPU packages and DRAM" if has_dram else "CPU packages",
            device=f"CPU of {hostname} ({boot_id(hostname)})",
            scope="node",
            resolution_s=RAPL_RESOLUTION_S,
            max_power_watts=sum(limit for limit in limits if limit) if all(limits) else None,
        )

    def read_joules(self) -> float:
        """Return joules since the first reading, all zones together.

        Raises:
            SourceLostError: A zone can no longer be read, or was reset.
        """
        try:
            with self._lock:
                return sum(c.add(_read_count(zone)) for zone, c in self._counters.items())
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


def _zones(root: Path) -> list[Path]:
    """Return packages and their DRAM; `intel-rapl-mmio` lists the same packages again: skipped."""
    zones = []
    for package in sorted(root.glob("intel-rapl:*")):
        if package.name.count(":") != 1 or not _read_text(package / "name").startswith("package"):
            continue
        parts = sorted(root.glob(f"{package.name}:*"))
        zones += [package, *(part for part in parts if _read_text(part / "name") == "dram")]
    return zones


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
