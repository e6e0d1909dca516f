"""Result files of benchmarks: JSON lines, each a case with its conditions and its result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from data.storage.atomic import check_writable, write_text
from data.storage.lock import FileLock
from moe.errors import ConfigError, StorageError
from moe.runs.json_lines import read_rows

# Conditions that must be equal for an earlier result to replace a measurement.
SAME_CONDITIONS = ("hardware", "packages", "python", "commit")


def result_identity(record: Mapping[str, Any]) -> str:
    """Return a key that two records share if one may stand for the other."""
    held = record.get("conditions")
    conditions = held if isinstance(held, Mapping) else {}
    same = {name: conditions.get(name) for name in SAME_CONDITIONS}
    return json.dumps([record.get("bench"), record.get("case"), same], sort_keys=True)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return a result file's records, none if there is no such file; a torn end is left out.

    Raises:
        BenchmarkError: It cannot be read, or a line is damaged; names it.
    """
    try:
        return read_rows(path)
    except ConfigError as error:
        raise BenchmarkError(f"{error}: not a file of results") from None


def check_results_writable(path: Path) -> None:
    """Raise BenchmarkError if results cannot be written to `path`: before anything is measured."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    except OSError as error:
        raise BenchmarkError(f"{path}: {error.strerror or error}: choose another file") from None


def append_result(path: Path, record: Mapping[str, Any]) -> None:
    """Add a record, atomically; other processes may append to the same file.

    Raises:
        StorageError: The disk does not take it.
    """
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):
            records = [*read_results(path), record]
            write_text(path, "".join(f"{json.dumps(one)}\n" for one in records))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None
