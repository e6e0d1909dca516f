"""How far a run is, from what it wrote: its metrics rows and its record."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from data.storage.bounded_json import read_json
from moe.errors import ConfigError
from moe.runs.files import METRICS, RECORD
from moe.runs.json_lines import Row, last_rows, read_rows

RECENT_ROWS = 20
"""Rows over which the step time is a median."""


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run is; none means not known or not measured."""

    status: str | None = None
    """`running`, `stopped`, `failed` or `finished`, as the run recorded it."""
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
    """Read a run's last rows and record; what is missing or damaged is none."""
    rows = last_rows(run_dir / METRICS, RECENT_ROWS)
    record = _readable_record(run_dir)
    last: Row = rows[-1] if rows else {}
    energy = _table(record.get("energy"))
    total = _number(_table(energy.get("total")).get("value"))
    times = [time for row in rows if (time := _number(row.get("step_time_s")))]
    final_loss = _number(record.get("final_loss")) if record.get("status") == "finished" else None
    return RunProgress(
        status=_text(record.get("status")),
        step=_count(last.get("step")),
        tokens=_count(last.get("tokens")),
        loss=_number(last.get("loss")) if final_loss is None else final_loss,
        tokens_per_s=_number(last.get("tokens_per_s")),
        step_time_s=median(times) if times else None,
        energy_joules=total if total is not None else _summed_joules(run_dir / METRICS),
        energy_kind=_text(energy.get("kind")),
        energy_boundary=_text(energy.get("boundary")),
    )


def read_status(run_dir: Path) -> str | None:
    """Return `running`, `stopped`, `failed` or `finished`; None where no record says so."""
    return _text(_readable_record(run_dir).get("status"))


def _readable_record(run_dir: Path) -> Mapping[str, Any]:
    try:
        return _table(read_json(run_dir / RECORD, ConfigError, follow_link=False))
    except (ConfigError, OSError):
        return {}


def _summed_joules(metrics: Path) -> float | None:
    """Add up the rows' joules while a run has no total yet."""
    try:
        rows = read_rows(metrics)
    except ConfigError:
        return None
    values = [joules for row in rows if (joules := _number(row.get("energy_joules")))]
    return sum(values) if values else None


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return value if type(value) in {int, float} and isfinite(value) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
