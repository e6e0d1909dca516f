"""Refits the step's parameters: `python -m benchmarks.planning.calibrate_steps FILE`.

Prints `parallel/planner/step/step.toml`, fitted on half of the layouts; with `--left-out`, the
parameters of cross-validation instead: one table for each family of models and each card, fitted on
all layouts of the others.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.planning.published_shapes import shape_of_row
from benchmarks.planning.validate import StepPredictor
from parallel.planner.calibration.fit_steps import (
    START,
    StepFit,
    StepSample,
    is_fitted_on,
)
from parallel.planner.flops import TERA, training_flops_per_token
from parallel.planner.step.parameters import StepParameters, step_parameters
from parallel.planner.validation.jobs import Job
from parallel.planner.validation.rows import PublishedRow, read_rows
from parallel.planner.validation.score import score_row

CONTRADICTORY = "natural routing, capacity factor"
"""Notes of rows that are scored, but not fitted on: with tokens dropped at a capacity of 1, steps
are slower than with all of them, which no condition that the rows state explains."""


@dataclass(frozen=True)
class PublishedStep:
    """A row that a fit may use."""

    row: PublishedRow
    jobs: Sequence[Job]
    seconds: float


def published_steps(rows: Iterable[PublishedRow]) -> list[PublishedStep]:
    """Return the steps of rows that are scored and whose conditions do not contradict speed."""
    predictor = StepPredictor()
    steps = []
    for row in rows:
        result = score_row(row, shape_of_row, predictor)
        if not result.is_used or CONTRADICTORY in (row.text("notes") or ""):
            continue
        assert result.published is not None
        work = result.jobs[0].work
        batch = work.batch
        tokens = batch.global_batch_size * batch.seq_len / work.placement.num_ranks
        flops = training_flops_per_token(work.shape, batch.seq_len)
        steps.append(PublishedStep(row, result.jobs, tokens * flops / TERA / result.published))
    return steps


def family_of(row: PublishedRow) -> str:
    """Return the family of a row's model: its name without generation and size."""
    match = re.match(r"gpt-oss|[a-z]+", row.cells["model"].lower())
    return match[0] if match else ""


def card_of_row(row: PublishedRow) -> str:
    """Return the card that a row names."""
    return row.cells["gpu"]


GROUPINGS: dict[str, Callable[[PublishedRow], str]] = {
    "family": family_of,
    "card": card_of_row,
}
"""What cross-validation leaves out whole."""


def step_fit(steps: Sequence[PublishedStep], start: StepParameters) -> StepFit:
    """Return the fit of some steps."""
    rows = Counter(step.row.text("layout_id") for step in steps)
    samples = [
        StepSample(
            jobs=step.jobs,
            measured_seconds=step.seconds,
            weight=1 / sqrt(rows[step.row.text("layout_id")]),
        )
        for step in steps
    ]
    return StepFit(start, samples, StepPredictor)


def left_out(
    steps: Sequence[PublishedStep], start: StepParameters
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the parameters fitted without each family and without each card, as TOML."""
    groups = [
        (grouping, name)
        for grouping, group_of in GROUPINGS.items()
        for name in sorted({group_of(step.row) for step in steps})
    ]
    members = [
        [index for index, step in enumerate(steps) if GROUPINGS[grouping](step.row) == name]
        for grouping, name in groups
    ]
    found: dict[str, dict[str, dict[str, Any]]] = {grouping: {} for grouping in GROUPINGS}
    without = step_fit(steps, start).fitted_without(members)
    for (grouping, name), parameters in zip(groups, without, strict=True):
        cards = {card_of_row(step.row) for step in steps}
        measured = cards - {name} if grouping == "card" else cards
        found[grouping][name] = as_toml(parameters, measured)
        del found[grouping][name]["spread"]
    return found


def as_toml(parameters: StepParameters, cards: Iterable[str]) -> dict[str, Any]:
    """Return parameters with four digits, and the cards whose steps were measured."""
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in parameters.model_dump().items()
    } | {"measured_cards": sorted(cards)}


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--iterations", type=int, default=12)
    options = parser.parse_args()
    steps = published_steps(read_rows(options.file))
    start = step_parameters()
    if options.left_out:
        print(tomli_w.dumps(left_out(steps, start)))
        return
    half = [step for step in steps if is_fitted_on(step.row.text("layout_id") or "")]
    fitted = step_fit(half, start.model_copy(update=START)).fitted(
        most_iterations=options.iterations
    )
    print(tomli_w.dumps(as_toml(fitted, {card_of_row(step.row) for step in steps})))


if __name__ == "__main__":
    main()
