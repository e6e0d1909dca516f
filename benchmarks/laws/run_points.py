"""Run directories as points: what `moe train` recorded, in the cost ledger's conventions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.model_sizes import counted_sizes
from benchmarks.laws.points import Points, read_points
from moe.config.experiment import validated
from moe.runs.reader import read_runs
from moe.runs.run import Run
from parallel.precision.recipes import Precision

SWEEP_RESULTS = "results.parquet"
"""Table of a sweep's runs in its directory."""
MOST_RUNS = 100_000


def points_from(paths: Sequence[Path]) -> Points:
    """Read one file of points, a sweep's directory, or run directories.

    Raises:
        BenchmarkError: Several paths that are not all run directories; as `read_points`.
        ConfigError: A run directory cannot be read.
    """
    if len(paths) == 1 and not paths[0].is_dir():
        return read_points(paths[0])
    if len(paths) == 1 and (paths[0] / SWEEP_RESULTS).exists():
        return read_points(paths[0] / SWEEP_RESULTS)
    for path in paths:
        if not path.is_dir():
            raise BenchmarkError(f"{path}: no run directory: give one file, or run directories")
    return run_points(read_runs(paths, MOST_RUNS))


def run_points(runs: Sequence[Run]) -> Points:
    """Return finished runs as points, one a run; sizes count embeddings.

    Raises:
        BenchmarkError: A run has no final held-out loss.
    """
    rows = [_row(run) for run in runs]
    columns = {
        name: np.array([row.get(name, np.nan) for row in rows], dtype=float)
        for name in dict.fromkeys(name for row in rows for name in row)
    }
    numbers = tuple(range(1, len(rows) + 1))
    return Points("run directories", columns, {"embeddings": "in"}, numbers)


def _row(run: Run) -> dict[str, float]:
    """Return a run's quantities; those that its model does not have are left out."""
    loss = run.record.get("final_loss")
    if loss is None or not loss > 0 or not run.tokens:
        raise BenchmarkError(
            f"{run.path}: no final held-out loss: not finished, or without evaluation"
        )
    return {
        "loss": float(loss),
        "tokens": float(run.tokens),
        "flops": run.training_flops(run.counts),
        **_bits(run),
        **counted_sizes(run.ledger, run.experiment.get("model", {})),
    }


def _bits(run: Run) -> dict[str, float]:
    """Return the bits of a run's matmuls; nothing where its experiment is not known."""
    if not run.experiment:
        return {}
    values = run.experiment.get("precision", {})
    precision = validated(Precision, values, str(run.path), ("precision",))
    return {"bits": float(precision.matmul_bits)}
