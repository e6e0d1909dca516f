"""Reading run directories: what training runs left behind, checked and typed."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import InputError
from moe.config.locating import EXPERIMENT_FILE
from moe.errors import ConfigError
from moe.runs.files import EVALUATIONS, EXPERT_LOAD, METRICS, ROUTING, ROUTING_MAPS
from moe.runs.json_lines import Row, read_rows
from moe.runs.record import read_record
from moe.runs.run import Run

MAX_RUNS = 200


def read_run(path: Path) -> Run:
    """Read one run directory; a last line that was cut off (a killed run) is left out.

    Raises:
        ConfigError: Not a run directory, or a damaged file; names it.
    """
    return Run(
        path=path,
        record=read_record(path),
        experiment=_read_experiment(path / EXPERIMENT_FILE),
        metrics=_rows_by_step(path / METRICS, "tokens"),
        evaluations=_rows_by_step(path / EVALUATIONS, "tokens", "loss"),
        expert_load=_rows_by_step(path / EXPERT_LOAD, "layers", "counts"),
        routing=_rows_by_step(path / ROUTING, "layers"),
        routing_maps=_read_maps(path / ROUTING_MAPS),
    )


@dataclass(frozen=True)
class UnreadableRun:
    """A run directory that holds nothing to show, or cannot be read."""

    path: Path
    reason: str


def read_runs(run_dirs: Sequence[Path]) -> list[Run]:
    """Read all run directories.

    Raises:
        ConfigError: One cannot be read, one is given twice, none or too many are given.
    """
    runs, unreadable = read_runs_apart(run_dirs)
    if unreadable:
        raise ConfigError(unreadable[0].reason)
    return runs


def read_runs_apart(run_dirs: Sequence[Path]) -> tuple[list[Run], list[UnreadableRun]]:
    """Read all run directories; those that cannot be read come apart, with the reason.

    One run of many that failed hides no other.

    Raises:
        ConfigError: None can be read, one does not exist or is given twice, none or too many are
            given.
    """
    if not 1 <= len(run_dirs) <= MAX_RUNS:
        raise ConfigError(f"{len(run_dirs)} runs: a report compares 1 to {MAX_RUNS}")
    seen: set[Path] = set()
    for path in run_dirs:
        if path.resolve() in seen:
            raise ConfigError(f"{path}: given twice; name each run once")
        if not path.exists():
            raise ConfigError(f"{path}: not a run directory (there is no such folder)")
        seen.add(path.resolve())
    runs: list[Run] = []
    unreadable: list[UnreadableRun] = []
    for path in run_dirs:
        try:
            runs.append(read_run(path))
        except InputError as error:
            unreadable.append(UnreadableRun(path, str(error)))
    if not runs:
        raise ConfigError(unreadable[0].reason)
    return runs, unreadable


def _read_experiment(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: damaged, not TOML: {error}") from None


def _read_maps(file: Path) -> dict[str, Any]:
    try:
        maps: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return maps
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: damaged, not JSON: {error}") from None


def _rows_by_step(file: Path, *keys: str) -> list[Row]:
    """Return a file's rows, the last of each step; a resumed run may have logged a step twice."""
    rows = {int(row["step"]): row for row in read_rows(file, ("step", *keys))}
    return [rows[step] for step in sorted(rows)]
