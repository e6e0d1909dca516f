"""The cases of a benchmark, measured one after another; a stopped benchmark resumes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench.results import (
    append_result,
    check_results_writable,
    read_results,
    result_identity,
)
from parallel.planner.calibration.records.bench_records import FORMAT

StatusCallback = Callable[[str], None]
"""Receives a line on what is being measured."""


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """How often each case is measured, under which settings, and where results are saved."""

    repeats: int
    """Timed repeats of a case."""
    warmup: int = 0
    """Repeats before them, which do not count."""
    overrides: Sequence[str] = ()
    """`KEY=VALUE` of `[parallel]`, `[precision]` and `[energy]`."""
    out: Path | None = None
    """File of results (JSON lines)."""


@dataclass(frozen=True)
class Case:
    """One point of a benchmark: what is measured, and how."""

    key: Mapping[str, Any]
    """What distinguishes the case from others, as JSON values."""
    run: Callable[[], Mapping[str, Any]]


def run_cases(  # noqa: PLR0913 - what one run of a benchmark needs
    bench: str,
    cases: Sequence[Case],
    conditions: Mapping[str, Any],
    *,
    out: Path | None = None,
    on_status: StatusCallback = lambda _line: None,
    broadcast: Callable[[Any], Any] = lambda value: value,
) -> list[dict[str, Any]]:
    """Measure all cases; with `out` (JSON lines), save each and skip those saved before.

    A case measured on other hardware, versions or another commit is measured again. With several
    ranks only rank 0 has `out`; `broadcast` returns rank 0's value on every rank, so that all
    skip the same cases.

    Raises:
        BenchmarkError: `out` is damaged or cannot be written.
        StorageError: The disk does not take a result.
    """
    saved = {}
    if out is not None:
        check_results_writable(out)
        whole = (record for record in read_results(out) if isinstance(record.get("result"), dict))
        saved = {result_identity(record): record for record in whole}
    records: list[dict[str, Any]] = [
        {"format": FORMAT, "bench": bench, "case": dict(case.key), "conditions": dict(conditions)}
        for case in cases
    ]
    earlier = broadcast([saved.get(result_identity(record)) for record in records])
    for number, case in enumerate(cases):
        label = f"{bench} {number + 1}/{len(cases)}: {_label(case)}"
        if earlier[number] is not None:
            on_status(f"{label}: kept from an earlier run")
            records[number] = earlier[number]
            continue
        on_status(label)
        records[number]["result"] = dict(case.run())
        if out is not None:
            append_result(out, records[number])
    return records


def _label(case: Case) -> str:
    plain = {k: v for k, v in case.key.items() if not isinstance(v, list | dict)}
    return ", ".join(f"{name} {value}" for name, value in plain.items() if value is not None)
