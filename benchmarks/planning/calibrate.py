"""Records of `moe bench` that a plan is calibrated on: read, counted, and told."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from moe.runs.json_lines import read_rows
from parallel.hardware.card import Card
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.user_points import Calibration, calibrate_card


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What files of records made of a card."""

    files: tuple[str, ...]
    records: int
    found: Calibration

    def as_json(self) -> dict[str, Any]:
        """Return the part of `moe plan --json`."""
        found = self.found
        return {
            "files": list(self.files),
            "device": found.device,
            "records": self.records,
            "kinds": {kind: asdict(one) for kind, one in found.kinds.items()},
            "unused": dict(found.unused),
            "notes": list(found.notes),
            "spread": found.spread,
            "kind": "measured",
        }


def calibrate(card: Card, paths: Sequence[Path]) -> Calibrated:
    """Return what the records of files make of a card.

    Raises:
        InputError: A file or a line cannot be read; names it.
        ParallelError: A record is wrong, or of another device, or none calibrates.
    """
    records = [
        BenchRecord(origin=f"{path}: line {number}", values=row)
        for path in paths
        for number, row in enumerate(_rows(path), 1)
    ]
    found = calibrate_card(card, records)
    return Calibrated(files=tuple(map(str, paths)), records=len(records), found=found)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = read_rows(path, as_written=True)
    if not rows:
        fault = "has no record" if path.exists() else "there is no such file"
        raise BenchmarkError(f"--calibrate {path}: {fault}: write one with moe bench ... --out")
    return rows
