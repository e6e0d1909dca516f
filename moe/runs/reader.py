"""Reading run directories: what training runs left behind, checked and typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.storage.bounded_json import read_json, read_toml
from moe.config.experiment import validated
from moe.config.locating import EXPERIMENT_FILE
from moe.errors import ConfigError
from moe.runs.files import EVALUATIONS, EXPERT_LOAD, METRICS, ROUTING, ROUTING_MAPS
from moe.runs.format import (
    EvaluationRow,
    ExperimentValues,
    ExpertLoadRow,
    MetricsRow,
    RoutingMapsValues,
    RoutingRow,
    StepRow,
)
from moe.runs.json_lines import Row, read_rows
from moe.runs.record import read_record
from moe.runs.run import Run

MAX_RUNS = 200
MAX_MAPS_BYTES = 1 << 30
"""61 layers of 256 experts have about 20 MB."""


def read_run(path: Path) -> Run:
    """Read one run directory; a last line that was cut off (a killed run) is left out.

    Raises:
        ConfigError: Not a run directory, or a damaged file; names it.
    """
    return Run(
        path=path,
        record=read_record(path),
        experiment=_read_experiment(path / EXPERIMENT_FILE),
        metrics=_rows_by_step(path / METRICS, MetricsRow, "tokens"),
        evaluations=_rows_by_step(path / EVALUATIONS, EvaluationRow, "tokens", "loss"),
        expert_load=_read_expert_load(path / EXPERT_LOAD),
        routing=_rows_by_step(path / ROUTING, RoutingRow, "layers"),
        routing_maps=_read_maps(path / ROUTING_MAPS),
    )


@dataclass(frozen=True)
class UnreadableRun:
    """A run directory that holds nothing to show, or cannot be read."""

    path: Path
    reason: str


def read_runs(run_dirs: Sequence[Path], most: int = MAX_RUNS) -> list[Run]:
    """Read all run directories, at most `most`.

    Raises:
        ConfigError: One cannot be read, one is given twice, none or too many are given.
    """
    runs, unreadable = read_runs_apart(run_dirs, most)
    if unreadable:
        raise ConfigError(unreadable[0].reason)
    return runs


def read_runs_apart(
    run_dirs: Sequence[Path], most: int = MAX_RUNS
) -> tuple[list[Run], list[UnreadableRun]]:
    """Read at most `most` run directories; those that cannot be read come apart, with the reason.

    One run of many that failed hides no other.

    Raises:
        ConfigError: None can be read, one does not exist or is given twice, none or too many are
            given.
    """
    if not 1 <= len(run_dirs) <= most:
        raise ConfigError(f"{len(run_dirs)} runs: a report compares 1 to {most}")
    seen: set[Path] = set()
    for path in run_dirs:
        if path.resolve() in seen:
            raise ConfigError(f"{path}: given twice; name each run once")
        if not path.exists() and not path.is_symlink():
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
        values = read_toml(file, ConfigError, follow_link=False)
    except FileNotFoundError:
        return {}
    validated(ExperimentValues, values, str(file))
    return values


def _read_maps(file: Path) -> dict[str, Any]:
    try:
        maps = read_json(file, ConfigError, max_bytes=MAX_MAPS_BYTES, follow_link=False)
    except FileNotFoundError:
        return {}
    if not isinstance(maps, dict):
        raise ConfigError(f"{file}: damaged: not a JSON object")
    if maps:
        validated(RoutingMapsValues, maps, str(file), by_hand=False)
    return maps


def _read_expert_load(file: Path) -> list[Row]:
    """Return rows that are all of the same layers and number of experts."""
    rows = _rows_by_step(file, ExpertLoadRow, "layers", "counts")
    for row in rows:
        if row["layers"] != rows[0]["layers"] or len(row["counts"][0]) != len(rows[0]["counts"][0]):
            raise ConfigError(
                f"{file}: step {row['step']} is of other layers or experts than step"
                f" {rows[0]['step']}: two runs have written it"
            )
    return rows


def _rows_by_step(file: Path, kind: type[StepRow], *keys: str) -> list[Row]:
    """Return a file's rows, the last of each step; a resumed run may have logged a step twice."""
    found = read_rows(file, ("step", *keys), kind, follow_link=False)
    by_step = {row["step"]: row for row in found}
    rows = [by_step[step] for step in sorted(by_step)]
    for before, row in pairwise(rows):
        if row.get("tokens", 0) < before.get("tokens", 0):
            raise ConfigError(
                f"{file}: step {row['step']} has fewer tokens than step {before['step']}: two runs"
                " have written it"
            )
    return rows
