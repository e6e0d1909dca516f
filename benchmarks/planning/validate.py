"""The planner against published training steps: `moe plan --validate FILE.csv`."""

import statistics
from collections.abc import Hashable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.planning.published_shapes import shape_of_row
from parallel.hardware.card import Card, load_card
from parallel.planner.device_memory import device_memory
from parallel.planner.memory import RankMemory, peak_memory
from parallel.planner.software import MEGATRON, OUR_STATE, StateBytes
from parallel.planner.step.clock import Clock
from parallel.planner.step.parameters import StepParameters, step_parameters
from parallel.planner.step.step_time import StepTimes
from parallel.planner.validation.jobs import Job
from parallel.planner.validation.rows import read_rows
from parallel.planner.validation.score import RowResult, all_scored, summaries, summarize

BF16_GRADIENTS = StateBytes(gradient=2)
"""Megatron-Bridge's benchmark recipes reduce gradients in BF16 (`perf_recipes/`)."""

MEMORY_ERROR = 1.1
"""How much more than a card has a job may need by the memory model before it is thought not to have
fitted: that model's own error."""


class StepPredictor:
    """Predicts jobs of published rows; what jobs share is timed once."""

    def __init__(self, parameters: StepParameters | None = None) -> None:
        """Take other parameters than those that are shipped, to fit them."""
        self._parameters = parameters or step_parameters()
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
        work = job.work
        key = (job.gpu, job.fabric, work.shape, work.batch.seq_len, work.precision, work.execution)
        if key not in self._times:
            clock = Clock(card_of(job), work.precision, self._parameters)
            self._times[key] = StepTimes(clock)
        return self._times[key].step(work).seconds

    def _allocated(self, job: Job) -> RankMemory:
        key = id(job)
        if key not in self._memory:
            is_bridge = job.framework.startswith("Megatron-Bridge")
            state = BF16_GRADIENTS if is_bridge else OUR_STATE
            self._memory[key] = job, peak_memory(job.work, state=state, software=MEGATRON)
        return self._memory[key][1]


def card_of(job: Job) -> Card:
    """Return the card of a job with the network that its row names."""
    card = load_card(job.gpu)
    if job.fabric is None or card.links is None:
        return card
    return card.model_copy(update={"links": card.links.model_copy(update={"fabric": job.fabric})})
