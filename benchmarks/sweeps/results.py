"""The results of a sweep: one row a run, every convention a column, in one Parquet file."""

import json
import signal
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks.laws.model_sizes import sizes_of
from benchmarks.laws.quantities import QUANTITIES
from benchmarks.sweeps.folder import SweepFolder
from benchmarks.sweeps.point import Point
from data.errors import InputError, StoppedError
from data.storage.atomic import atomic_path
from moe.runs.record import read_record, read_record_if_any
from moe.runs.run import Run

FINISHED, FAILED, STOPPED, MISSING = "finished", "failed", "stopped", "missing"
MEASURED = tuple(name for name in QUANTITIES if name != "leverage")
"""Quantities of runs; a leverage compares two."""
FLOP_CONVENTION = "6 x active matmul parameters + causal attention (moe cost)"
TEXTS = (
    "run", "status", "reason", "run_dir", "settings", "embeddings", "granularity_definition",
    "loss_unit", "flop_convention", "energy_kind", "energy_boundary",
    "started_at",
)  # fmt: skip
WHOLE = ("seed", "steps", "seq_len", "num_layers")
NUMBERS = (
    "learning_rate", "batch_tokens", "asked_tokens", "asked_size", "held", "asked_held",
    "wall_seconds", "tokens_per_s", "energy_joules",
)  # fmt: skip
Row = dict[str, Any]
_REASON_CHARACTERS = 300


def row_of(folder: SweepFolder, point: Point, exit_code: int | None = None) -> Row:
    """Return a run's row, as far as it got; `exit_code` of its process, if one ended just now."""
    row, run_dir = _planned(point) | {"run_dir": str(folder.run_dir(point))}, folder.run_dir(point)
    try:
        record = read_record_if_any(run_dir)
        if record.get("status") == FINISHED:
            run = Run(run_dir, read_record(run_dir), point.experiment.model_dump(mode="json"))
            return row | {"status": FINISHED, **_measured(run)}
    except InputError as error:
        return row | {"status": FAILED, "reason": _short(str(error))}
    if exit_code is None and record.get("status") != FAILED:
        return row | {"status": STOPPED if record else MISSING, "reason": None}
    if exit_code in {StoppedError.exit_code, -signal.SIGTERM}:
        return row | {"status": STOPPED, "reason": None}
    if exit_code is not None and exit_code < 0:
        reason = f"killed by {_signal_name(-exit_code)}"
    else:
        reason = str(record.get("failure") or _last_line(folder.log(point)))
    return row | {"status": FAILED, "reason": _short(reason)}


def write_results(file: Path, rows: Collection[Mapping[str, Any]]) -> None:
    """Replace the table of all runs, atomically; columns without any value are left out."""
    import pyarrow
    import pyarrow.parquet

    kinds = dict.fromkeys(TEXTS, pyarrow.string())
    kinds |= dict.fromkeys(WHOLE, pyarrow.int64())
    kinds |= dict.fromkeys((*NUMBERS, *MEASURED), pyarrow.float64())
    columns = {name: [row.get(name) for row in rows] for name in kinds}
    table = pyarrow.table(
        {
            name: pyarrow.array(column, kinds[name])
            for name, column in columns.items()
            if any(value is not None for value in column)
        }
    )
    with atomic_path(file) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def _planned(point: Point) -> Row:
    """Return what is known before a run."""
    train, experiment = point.experiment.train, point.experiment
    return {
        "run": point.run_name,
        "settings": json.dumps(dict(point.settings)),
        "embeddings": "in",
        "granularity_definition": "ffn",
        "loss_unit": "nats",
        "flop_convention": FLOP_CONVENTION,
        "seed": train.seed,
        "steps": train.steps,
        "seq_len": train.seq_len,
        "num_layers": experiment.model.num_layers,
        "learning_rate": train.learning_rate,
        "batch_tokens": train.positions_per_step,
        "asked_tokens": point.asked_tokens,
        "asked_size": None if point.rung is None else point.rung.asked,
        "asked_held": None if point.held is None else point.held.asked,
        "held": None if point.held is None else point.held.real,
        "bits": experiment.precision.matmul_bits,
        **sizes_of(experiment.model),
    }


def _measured(run: Run) -> Row:
    """Return what a finished run measured; null where it did not."""
    energy = run.energy("total", "J")
    return {
        "loss": run.record.get("final_loss"),
        "reason": run.record.get("final_loss_reason"),
        "tokens": run.tokens,
        "flops": run.training_flops(run.counts),
        "wall_seconds": run.record.get("wall_time_s"),
        "tokens_per_s": run.tokens_per_s,
        "energy_joules": energy.value,
        "energy_kind": energy.kind,
        "energy_boundary": None if energy.value is None else energy.boundary,
        "started_at": run.record.get("started_at"),
    }


def _signal_name(number: int) -> str:
    """Return a signal's name; most real-time signals have only a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _short(reason: str) -> str:
    """Return a reason as one line of bounded length."""
    line = " ".join(reason.split())
    return line if len(line) <= _REASON_CHARACTERS else f"{line[:_REASON_CHARACTERS]}..."


def _last_line(log: Path) -> str:
    """Return the last line that a process wrote."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("moe: ") if said else "its process said nothing"
