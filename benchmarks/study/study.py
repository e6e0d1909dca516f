"""The study from text to finding."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.laws.compare import LawFit, comparison
from benchmarks.laws.points import read_points
from benchmarks.study.corpus import build_corpus
from benchmarks.study.ladder_curve import Ladder, ladder_of
from benchmarks.study.laws import fit_apart, fit_together
from benchmarks.study.leverage import Leverage, leverage_of_laws, leverage_of_minima
from benchmarks.study.minima import Minimum, iso_flop_minima
from benchmarks.study.pairs import Pairs, pairs_of
from benchmarks.study.prediction import (
    Outcome,
    outcomes,
    predict_run,
    root_mean_squared_error,
)
from benchmarks.study.sweeps import HELD_OUT, copy_designs, expanded, run_sweep
from benchmarks.sweeps.design import Design
from benchmarks.sweeps.results import Row, write_results
from data.storage.atomic import write_json

RUNS = "runs.parquet"
"""All runs that laws are fitted to."""
PREDICTIONS = "predictions.json"
"""Written before the runs that it is about."""


@dataclass(frozen=True)
class Study:
    """What the study found."""

    corpus: Mapping[str, Any]
    rows: Sequence[Row]
    """Of all runs, the largest too."""
    apart: Mapping[int, LawFit]
    """By number of experts."""
    together: Sequence[LawFit]
    ladders: Mapping[int, Ladder]
    minima: Sequence[Minimum]
    outcomes: Sequence[Outcome]
    held_out_errors: Mapping[str, float]
    """Root mean squared error of ln loss of the largest runs, by law."""
    leverage: Sequence[Leverage]
    pairs: Sequence[Pairs]

    @property
    def compared(self) -> dict[str, Any]:
        """The laws of all runs, side by side."""
        return comparison(self.together)


def run_study(
    name: str,
    sources: Sequence[Path],
    out: Path,
    jobs: int,
    say: Callable[[str], None],
) -> Study:
    """Run what is missing of the designs `name` in `out`, fit, predict, and compare.

    Raises:
        DataError: The text is missing or too little.
        StoppedError: A signal stopped it; the same call continues.
        FailedError: Runs failed.
    """
    store = (out / "store").resolve()
    designs = copy_designs(name, out / "designs", store)
    vocabulary = next(iter(designs.values())).base.model.vocab_size
    corpus = build_corpus(sources, store, vocabulary)
    say(f"{corpus['tokens']['train']:,} training tokens in {store}")
    expansions = {sweep: expanded(design) for sweep, design in designs.items()}
    rows: list[Row] = []
    fitted = sorted(set(designs) - {HELD_OUT}, key=lambda sweep: designs[sweep].file.hold)
    for sweep in fitted:
        say(f"sweep {sweep}: {len(expansions[sweep].points)} runs")
        rows += run_sweep(expansions[sweep], out / "sweeps" / sweep, jobs, say)
    write_results(out / RUNS, rows)
    points = read_points(out / RUNS)
    apart, together = fit_apart(points), fit_together(points)
    largest = [one.point.as_json() for one in expansions[HELD_OUT].points]
    predictions = {n: predict_run(fit, _sizes(largest, n)) for n, fit in apart.items()}
    write_json(out / PREDICTIONS, {str(n): vars(one) for n, one in predictions.items()})
    for experts, one in predictions.items():
        say(f"predicted, {experts} experts: {one.loss:.3f} ({one.low:.3f} to {one.high:.3f})")
    held_out = run_sweep(expansions[HELD_OUT], out / "sweeps" / HELD_OUT, jobs, say)
    ladders = {n: ladder_of(designs[HELD_OUT], n) for n in apart}
    minima = iso_flop_minima(points, _budgets(designs, fitted))
    budgets = _budgets(designs, [*fitted, HELD_OUT])
    return Study(
        corpus,
        [*rows, *held_out],
        apart,
        together,
        ladders,
        minima,
        outcomes(predictions, held_out),
        _held_out_errors(together, held_out),
        [*leverage_of_laws(apart, ladders, budgets), *leverage_of_minima(apart, ladders, minima)],
        pairs_of([*rows, *held_out]),
    )


def _sizes(points: Sequence[Mapping[str, Any]], experts: int) -> dict[str, float]:
    """Return the sizes and tokens of the run of so many experts."""
    return next(dict(one) for one in points if one["experts"] == experts)


def _budgets(designs: Mapping[str, Design], names: Sequence[str]) -> list[float]:
    """Return the FLOPs that sweeps hold, ascending."""
    return sorted({budget for name in names for budget in designs[name].file.hold})


def _held_out_errors(laws: Sequence[LawFit], rows: Sequence[Row]) -> dict[str, float]:
    losses = np.array([row["loss"] for row in rows], dtype=float)
    return {
        law.fit.law.name: root_mean_squared_error(
            law,
            {n: np.array([row[n] for row in rows], dtype=float) for n in law.fit.law.columns},
            losses,
        )
        for law in laws
    }
