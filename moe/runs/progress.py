"""How far a run is, from what it wrote: its metrics rows and its record."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

RECENT_ROWS = 20
"""Rows whose step time stands for the run's pace."""


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Where a run stands; none means not known, not measured."""

    status: str | None = None
    """`running`, `stopped`, `failed`, `finished`: the run's own word."""
    step: int | None = None
    tokens: int | None = None
    loss: float | None = None
    """Training loss of the last row; the final loss once the run is finished."""
    tokens_per_s: float | None = None
    step_time_s: float | None = None
    """Median over the last rows, s."""
    energy_joules: float | None = None
    """Joules by the run's own meter, over all its starts."""
    energy_kind: str | None = None
    """`measured` or `modelled`."""
    energy_boundary: str | None = None
    """What was metered, for example the GPU board."""


def read_progress(run_dir: Path) -> RunProgress:
    """Read a run's last rows and record; a run that has written nothing gives all none."""
    rows = last_rows(run_dir / "metrics.jsonl", RECENT_ROWS)
    record = _record(run_dir / "record.json")
    last: dict[str, Any] = rows[-1] if rows else {}
    energy = record.get("energy") or {}
    total = (energy.get("total") or {}).get("value")
    times = [row["step_time_s"] for row in rows if row.get("step_time_s")]
    final_loss = record.get("final_loss") if record.get("status") == "finished" else None
    return RunProgress(
        status=record.get("status"),
        step=last.get("step"),
        tokens=last.get("tokens"),
        loss=last.get("loss") if final_loss is None else final_loss,
        tokens_per_s=last.get("tokens_per_s"),
        step_time_s=median(times) if times else None,
        energy_joules=total if total is not None else _summed_joules(run_dir / "metrics.jsonl"),
        energy_kind=energy.get("kind"),
        energy_boundary=energy.get("boundary"),
    )


def last_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the last complete JSON lines of a file that may be growing."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 2048 * (count + 1)))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    return [row for line in lines[-count - 1 :] if (row := _row(line)) is not None]


def _row(line: bytes | str) -> dict[str, Any] | None:
    """Parse one line; none where it is cut off."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _record(path: Path) -> dict[str, Any]:
    try:
        return _row(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}


def _summed_joules(path: Path) -> float | None:
    """Add up the rows while a run has no total yet."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    values = [
        row["energy_joules"] for line in lines if (row := _row(line)) and row.get("energy_joules")
    ]
    return sum(values) if values else None
