"""`record.json` of a run directory: what ran, on what, and what came of it."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data.storage.atomic import write_json
from data.storage.bounded_json import read_json
from moe.config.experiment import Experiment, validated
from moe.errors import ConfigError
from moe.runs.environment import environment
from moe.runs.files import RECORD
from moe.runs.format import RecordValues
from moe.runs.source_state import source_state

RECORD_FORMAT = 1
LEDGER_KEYS = ("total_parameters", "active_parameters", "training_flops_per_token")
# How a run may have ended that recorded no more than this.
ENDED_EARLY = ("failed", "stopped")
Record = dict[str, Any]
_REMEDY = "restore it from a copy; to resume the run without it, remove it"


def read_record(run_dir: Path) -> Record:
    """Return the record of a run that has begun.

    Raises:
        ConfigError: Not a run directory, or a record that is damaged or of another format.
    """
    file = run_dir / RECORD
    try:
        record = _read_json(file)
    except FileNotFoundError:
        raise ConfigError(
            f"{run_dir}: not a run directory (no {RECORD}): give the directory that"
            " `moe train` printed as run_dir"
        ) from None
    if record == {}:
        raise ConfigError(f"{file}: damaged: an empty object: {_REMEDY}")
    if (
        not isinstance(record, dict)
        or record.get("format") is True
        or record.get("format") != RECORD_FORMAT
    ):
        version = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise ConfigError(
            f"{file}: format {version!r:.40} is not {RECORD_FORMAT}: read it with the version of"
            " moescale that wrote it"
        )
    ledger = record.get("ledger")
    if ledger is None and record.get("status") in ENDED_EARLY:
        raise ConfigError(
            f"{run_dir}: {record['status']} before its first step"
            f" ({record.get('failure') or 'the reason was not recorded'}): there is nothing to show"
        )
    missing = [key for key in LEDGER_KEYS if not isinstance(ledger, dict) or key not in ledger]
    if missing:
        raise ConfigError(f"{file}: damaged, ledger lacks {', '.join(missing)}")
    return _checked(record, file)


def read_record_if_any(run_dir: Path) -> Record:
    """Return a run's record of whatever format; {} where it has none yet.

    Raises:
        ConfigError: It is damaged.
    """
    file = run_dir / RECORD
    try:
        record = _read_json(file)
    except FileNotFoundError:
        return {}
    if not isinstance(record, dict):
        raise ConfigError(f"{file}: damaged: not a JSON object")
    return _checked(record, file)


def write_record(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Replace a run's record, atomically; only who holds the run's lock may."""
    write_json(run_dir / RECORD, record)


def new_record(experiment: Experiment) -> Record:
    """Return the first values of a run's record: name, time, command, software and commit."""
    return {
        "run_id": f"{experiment.name}-{experiment.content_hash}",
        "name": experiment.name,
        "status": "running",
        "started_at": utc_now(),
        "finished_at": None,
        "command": " ".join(sys.argv),
        "environment": environment(),
        "git": source_state(),
    }


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_json(file: Path) -> Any:
    try:
        return read_json(file, ConfigError, follow_link=False)
    except ConfigError as error:
        raise ConfigError(f"{error}: {_REMEDY}") from None


def _checked(record: Record, file: Path) -> Record:
    """Return a record as it is, if its values are of their kinds."""
    validated(RecordValues, record, str(file), by_hand=False)
    return record
