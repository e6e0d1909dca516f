"""The planner against published training steps: `moe plan --validate FILE.csv`."""

import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from benchmarks.planning.published_recipes import recipe_of
from benchmarks.planning.published_shapes import shape_of_row
from parallel.errors import ParallelError
from parallel.hardware.card import Card, load_card
from parallel.planner.device_memory import device_memory
from parallel.planner.energy import Estimate, Site, step_energy
from parallel.planner.memory import RankMemory, peak_memory
from parallel.planner.step.clock import Clock
from parallel.planner.step.parameters import StepParameters, step_parameters
from parallel.planner.step.phases import phase_seconds
from parallel.planner.step.step_time import StepBreakdown, StepTimes
from parallel.planner.validation.jobs import Job
from parallel.planner.validation.rows import read_rows
from parallel.planner.validation.score import RowResult, all_scored, summaries, summarize

MEMORY_ERROR = 1.1
"""How much more than a card has a job may need by the memory model before it is thought not to have
fitted: that model's own error."""
GIB = 2**30


def validate(file: Path) -> dict[str, Any]:
    """Predict every row of a CSV of published steps; the result of `moe plan --validate --json`.

    No prediction looks at a published number.

    Raises:
        ParallelError: A column is missing, a cell is wrong, or there is no row; names the file.
    """
    rows = read_rows(file)
    try:
        results = all_scored(rows, shape_of_row, StepPredictor())
        memory = memory_summary(results)
    except ParallelError as error:
        raise ParallelError(f"{file}: {error}") from None
    whole = summarize(results)
    columns = ("kind", "gpu", "model", "flags_known")
    return {
        "rows": [result.as_json() for result in results],
        "median_abs_error": None if whole is None else whole.median,
        "p90_abs_error": None if whole is None else whole.p90,
        "coverage": None if whole is None else whole.covered,
        "layouts": 0 if whole is None else whole.layouts,
        "groups": {
            column: {name: asdict(each) for name, each in summaries(results, column).items()}
            for column in columns
        },
        "memory": memory,
    }


def memory_summary(results: Sequence[RowResult]) -> dict[str, Any]:
    """Return the errors of predicted peaks, by layout, as shares of the published ones."""
    by_layout = defaultdict[str, list[float]](list)
    for result in results:
        published = result.row.number("peak_memory_gib")
        if published and result.memory_bytes:
            layout = result.row.text("layout_id") or f"line {result.row.line}"
            by_layout[layout].append(abs(result.memory_bytes / GIB / published - 1))
    errors = sorted(statistics.median(values) for values in by_layout.values())
    return {
        "layouts": len(errors),
        "median_abs_error": statistics.median(errors) if errors else None,
        "largest_abs_error": max(errors, default=None),
    }


class StepPredictor:
    """Predicts jobs of published rows; what jobs share is timed once."""

    def __init__(self, parameters: StepParameters | None = None) -> None:
        """Take other parameters than those that are shipped, to fit them."""
        self.parameters = parameters or step_parameters()
        self._times: dict[Hashable, StepTimes] = {}
        self._memory: dict[int, tuple[Job, RankMemory]] = {}

    def memory_bytes(self, job: Job) -> int:
        """Return the peak of what tensors take on a rank."""
        return self._allocated(job).total_bytes

    def fits(self, job: Job) -> bool:
        """Return whether a job fits in its card's memory."""
        needed = device_memory(job.work, self._allocated(job)).total_bytes
        return needed <= MEMORY_ERROR * load_card(job.gpu).memory_bytes

    def step_seconds(self, job: Job) -> float:
        """Return the seconds of one step."""
        return self.step(job).seconds

    def node_joules_per_token(self, job: Job, cooling: Literal["air", "liquid"]) -> Estimate:
        """Return joules a token at the nodes' power supplies.

        Raises:
            ParallelError: The card's file does not say what it draws.
        """
        card, work = card_of(job), job.work
        if card.power is None:
            raise ParallelError(f"gpu {card.name}: its file has no [power]: add the section")
        energy = step_energy(
            card.power,
            phase_seconds(self.step(job).terms),
            num_gpus=work.placement.num_ranks,
            tokens=work.batch.global_batch_size * work.batch.seq_len,
            site=Site(cooling=cooling),
        )
        return energy.per_token()["nodes"]

    def step(self, job: Job) -> StepBreakdown:
        """Return one step by term."""
        work = job.work
        key = (job.gpu, job.fabric, work.shape, work.batch.seq_len, work.precision, work.execution)
        if key not in self._times:
            clock = Clock(card_of(job), work.precision, self.parameters)
            self._times[key] = StepTimes(clock)
        return self._times[key].step(work)

    def _allocated(self, job: Job) -> RankMemory:
        key = id(job)
        if key not in self._memory:
            recipe = recipe_of(job.row)
            work = recipe.applied_to(job.work)
            peak = peak_memory(work, state=recipe.state, software=recipe.software)
            self._memory[key] = job, peak
        return self._memory[key][1]


def card_of(job: Job) -> Card:
    """Return the card of a job with the network that its row names."""
    card = load_card(job.gpu)
    if job.fabric is None or card.links is None:
        return card
    return card.model_copy(update={"links": card.links.model_copy(update={"fabric": job.fabric})})
