"""What every benchmark shares: cases, records with their conditions, resuming."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError
from moe.errors import StorageError
from moe.storage.atomic import check_writable, locked, write_text

FORMAT = 1
# What must be equal for an earlier result to stand for this one.
SAME_CONDITIONS = ("hardware", "packages", "python", "commit")


def process_bytes(key: str) -> int:
    """Return memory of this process from `/proc/self/status`, such as `VmRSS` or its peak `VmHWM`.

    The peak that `getrusage` gives is no measure: it begins with the size of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


@dataclass(frozen=True)
class Case:
    """One point of a benchmark: what is measured, and how."""

    key: Mapping[str, Any]
    """What tells the case from others, as JSON values."""
    run: Callable[[], Mapping[str, Any]]


def settle(device: Any) -> None:
    """Wait until a torch device has done what it was given."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


Told = Callable[[str], None]


def run_cases(  # noqa: PLR0913 - what one run of a benchmark needs
    bench: str,
    cases: Sequence[Case],
    conditions: Mapping[str, Any],
    *,
    out: Path | None = None,
    tell: Told = lambda _line: None,
    share: Callable[[Any], Any] = lambda found: found,
) -> list[dict[str, Any]]:
    """Measure all cases; with `out` (JSON lines) keep each and pass over those kept before.

    A case measured on other hardware, versions or another commit is measured again. Of several
    ranks the one with `out` decides; `share` gives every rank what rank 0 found.

    Raises:
        BenchmarkError: `out` is damaged or cannot be written.
        StorageError: The disk does not take a result.
    """
    _check(out)
    kept = {_identity(record): record for record in read_records(out)}
    records: list[dict[str, Any]] = [
        {"format": FORMAT, "bench": bench, "case": dict(case.key), "conditions": dict(conditions)}
        for case in cases
    ]
    earlier = share([kept.get(_identity(record)) for record in records])
    for number, case in enumerate(cases):
        label = f"{bench} {number + 1}/{len(cases)}: {_label(case)}"
        if earlier[number] is not None:
            tell(f"{label}: kept from an earlier run")
            records[number] = earlier[number]
            continue
        tell(label)
        records[number]["result"] = dict(case.run())
        _append(out, records[number])
    return records


def _label(case: Case) -> str:
    plain = {k: v for k, v in case.key.items() if not isinstance(v, list | dict)}
    return ", ".join(f"{name} {value}" for name, value in plain.items() if value is not None)


def _identity(record: Mapping[str, Any]) -> str:
    conditions = record.get("conditions") or {}
    same = {name: conditions.get(name) for name in SAME_CONDITIONS}
    return json.dumps([record.get("bench"), record.get("case"), same], sort_keys=True)


def read_records(path: Path | None) -> list[dict[str, Any]]:
    """Return a results file's records, none of a file that is not there; a torn end is left out.

    Raises:
        BenchmarkError: It cannot be read, or a line is damaged; names it.
    """
    if path is None or not path.exists():
        return []
    records = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path}: no file of results: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number == len(lines):
                break
            raise BenchmarkError(f"{path}: line {number} is damaged, not JSON") from None
    return records


def _check(path: Path | None) -> None:
    """Refuse a place that cannot be written before anything is measured."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    except OSError as error:
        raise BenchmarkError(
            f"{path}: {error.strerror or error}: choose another file with -o"
        ) from None


def _append(path: Path | None, record: Mapping[str, Any]) -> None:
    if path is None:
        return
    try:
        with locked(path.with_name(f".{path.name}.lock")):  # others may measure into it as well
            whole = [json.dumps(earlier) for earlier in read_records(path)]
            write_text(path, "".join(f"{line}\n" for line in [*whole, json.dumps(record)]))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None
