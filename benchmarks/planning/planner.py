"""One job's layouts, predicted: memory, seconds, joules, limits, and the search over all of them.

Assembled from `parallel/planner`, with what the job's card and site add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import inf
from typing import Any

from benchmarks.planning.interval import error_band
from benchmarks.planning.job import PlanJob
from benchmarks.planning.layout_text import LayoutRequest
from benchmarks.planning.limits import limits
from moe.config.kernels import kernel_fault, packed_fault
from parallel.errors import ParallelError
from parallel.hardware.power import Phase
from parallel.layout.layout import Layout
from parallel.layout.placement import Placement, place
from parallel.layout.validation import layout_faults
from parallel.planner.device_memory import DeviceMemory, device_memory
from parallel.planner.energy import StepEnergy, step_energy
from parallel.planner.flops import training_flops_per_token
from parallel.planner.memory import peak_memory
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.schedule.timeline import StepTime
from parallel.planner.search.candidates import MICRO_BATCHES, Bounds
from parallel.planner.search.least_seconds import least_seconds
from parallel.planner.search.ranking import Row
from parallel.planner.search.search import Among, Found, Keep, checked, search
from parallel.planner.search.shared_times import ModelTimes, SharedClock, SharedLayerTimes
from parallel.planner.search.ways import Ways
from parallel.planner.step.phases import phase_seconds
from parallel.planner.step.step_time import StepTimes
from parallel.planner.workload import Workload
from parallel.precision.fp8_support import fp8_faults


@dataclass(frozen=True)
class Times:
    """Seconds of a model on one kind of card, shared by all its layouts."""

    step: StepTimes
    ways: Ways

    @classmethod
    def of(cls, job: PlanJob, work: Workload, libraries: Sequence[str]) -> "Times":
        """Return those of a job; `work` and `libraries` as of `Ways`."""
        clock = SharedClock(job.card, job.precision)
        layers = SharedLayerTimes(clock)
        return cls(StepTimes(clock, layers), Ways(work, ModelTimes(clock, layers), libraries))


class Planner:
    """Predicts layouts of one job; what layouts share is timed once."""

    def __init__(self, job: PlanJob, times: Times | None = None) -> None:
        """Take a job; `times` of the same model, sequence length, precision and card are shared."""
        self.job = job
        self._times = times or Times.of(job, self.template(), self._exchange_libraries())
        self._flops = training_flops_per_token(job.shape, job.batch.seq_len)
        self._band = error_band(job.shape, job.card, job.calibrated)

    def for_batch(self, num_gpus: int, global_batch_size: int) -> "Planner":
        """Return a planner of the same model on other cards with another batch."""
        batch = replace(self.job.batch, global_batch_size=global_batch_size)
        return Planner(replace(self.job, num_gpus=num_gpus, batch=batch), self._times)

    def workload(self, request: LayoutRequest) -> Workload:
        """Return the job in the layout that a text names.

        Raises:
            ParallelError: It is not legal; the first fault.
            InputError: Its values contradict each other.
        """
        job, layout = self.job, request.layout(self.job.layout)
        size = request.micro_batch_size or job.batch.micro_batch_size
        if job.fixed_micro_batch and size != job.batch.micro_batch_size:
            raise ParallelError(
                f"layout {request.text}: mbs={size}, but --micro-batch-size"
                f" {job.batch.micro_batch_size}: leave one out"
            )
        placement = self._placed(layout, size)
        if request.dp not in (None, placement.dp):
            raise ParallelError(
                f"layout {request.text}: dp={request.dp}, but {job.num_gpus} cards over"
                f" tp*cp*pp leave dp={placement.dp}: leave dp out"
            )
        return self._workload(placement, size)

    def own(self) -> Workload:
        """Return the job in the experiment's own layout.

        Raises:
            ParallelError: It is not legal on so many cards.
        """
        size = self.job.batch.micro_batch_size
        return self._workload(self._placed(self.job.layout, size), size)

    def faults(self, layout: Layout, micro_batch_size: int) -> list[str]:
        """Return why `moe train` cannot run a layout of the job; empty where it can."""
        job = self.job
        batch = replace(job.batch, micro_batch_size=micro_batch_size)
        faults = layout_faults(layout, job.shape, batch, job.num_gpus)
        return faults + self.train_faults(layout, micro_batch_size)

    def train_faults(self, layout: Layout, micro_batch_size: int) -> list[str]:
        """Return what `moe train` refuses of kernels and number format, wherever layers lie."""
        job = self.job
        batch = replace(job.batch, micro_batch_size=micro_batch_size)
        faults = [kernel_fault(job.model, layout, job.precision)]
        if job.packs_documents:
            faults.append(packed_fault(layout, job.precision, micro_batch_size))
        found = [fault for fault in faults if fault]
        return found + fp8_faults(job.precision, layout, job.shape, batch)

    def _placed(self, layout: Layout, micro_batch_size: int) -> Placement:
        """Place a layout that `moe train` takes.

        Raises:
            ParallelError: It does not take it; the first fault.
        """
        if faults := self.faults(layout, micro_batch_size):
            more = f" (and {len(faults) - 1} more: --why names all)" if len(faults) > 1 else ""
            raise ParallelError(faults[0] + more)
        return place(layout, self.job.num_gpus)

    def predict(self, work: Workload) -> LayoutPrediction:
        """Predict one layout in full, whether it fits or not."""
        return self._completed(self._timed(work, self._memory(work)))

    def timeline(self, work: Workload, micro_batches: int | None = None) -> StepTime:
        """Simulate one step pass by pass; of `micro_batches`, by default all."""
        return self._times.step.timeline(work, micro_batches)

    def search(self, count: int, horizon: float = 1.0) -> Found:
        """Return the `count` fastest layouts that fit; `horizon` as in `search`.

        Raises:
            ParallelError: None is legal, or none fits.
        """
        found = self.try_search(count, horizon=horizon)
        template = self.template()
        faults = self.train_faults(template.layout, template.batch.micro_batch_size)
        if faults and not found.candidates:
            raise ParallelError(faults[0])
        return checked(found, self.job.num_gpus, self.job.card.name)

    def try_search(
        self,
        count: int,
        *,
        only: Mapping[str, Any] | None = None,
        keep: Keep | None = None,
        horizon: float = 1.0,
    ) -> Found:
        """Return what a search finds, be it nothing; arguments as of `search` and `Bounds`."""
        job = self.job
        found = search(
            self.template(),
            replace(self.bounds(), only=only or {}),
            self._times.ways,
            predict=self._predict_if_fits,
            memory_bytes=job.card.memory_bytes,
            count=count,
            among=self._able(),
            keep=keep,
            horizon=horizon,
        )
        whole = {id(one): self._completed(one) for one in found.fitting}
        rows = (Row(whole[id(one)], [whole[id(each)] for each in near]) for one, near in found.rows)
        return replace(found, rows=tuple(rows), fitting=tuple(whole.values()))

    def least_step_seconds(self) -> float:
        """Return seconds that no layout's step undercuts; infinite where none can fit."""
        return least_seconds(
            self.template(),
            self.bounds(),
            self._times.ways,
            memory_bytes=self.job.card.memory_bytes,
            among=self._able(),
        )

    def _able(self) -> Among:
        """Return whether `moe train` takes sizes."""
        base = self.template().layout

        @cache
        def is_able(tp: int, cp: int, etp: int, micro_batch_size: int) -> bool:
            sizes = base.model_copy(update={"tp": tp, "cp": cp, "etp": etp})
            return not self.train_faults(sizes, micro_batch_size)

        return lambda sizes: is_able(sizes.tp, sizes.cp, sizes.etp, sizes.micro_batch_size)

    def template(self) -> Workload:
        """Return the job on one card; what a search decides is left at 1."""
        own = self.job.layout
        nothing = LayoutRequest(text="", fields=_overlap(own), micro_batch_size=None, dp=None)
        layout = nothing.layout(own)
        if kernel_fault(self.job.model, layout, self.job.precision):
            layout = layout.model_copy(update={"overlap_param_gather": own.overlap_param_gather})
        return self._workload(place(layout, 1), 1)

    def bounds(self) -> Bounds:
        """Return what a search of the job may try."""
        job, links = self.job, self.job.card.links
        is_packed = job.packs_documents and job.precision.kernels == "te"
        sizes = (job.batch.micro_batch_size,) if job.fixed_micro_batch else MICRO_BATCHES
        if is_packed and not job.fixed_micro_batch:
            sizes = (1,)
        ring = job.layout.model_copy(update={"cp": 2, "context_exchange": None})
        has_ring = kernel_fault(job.model, ring, job.precision) is None and not is_packed
        return Bounds(
            ranks=job.num_gpus,
            seq_len=job.batch.seq_len,
            global_batch_size=job.batch.global_batch_size,
            largest_tp=1 if links is None else links.domain_size,
            largest_cp=64 if has_ring else 1,
            micro_batches=sizes,
            exchange_libraries=self._exchange_libraries(),
        )

    def _exchange_libraries(self) -> tuple[str, ...]:
        """Return the experiment's library, all-to-all, and DeepEP where it runs and is modelled."""
        links, names = self.job.card.links, {self.job.layout.exchange_library, "alltoall"}
        if self.job.precision.kernels == "te" and links is not None and links.exchanges is not None:
            names.add("deepep")
        return tuple(sorted(names))

    def _workload(self, placement: Placement, micro_batch_size: int) -> Workload:
        job = self.job
        return Workload(
            shape=job.shape,
            placement=placement,
            batch=replace(job.batch, micro_batch_size=micro_batch_size),
            precision=job.precision,
            execution=job.execution,
            expert_imbalance=job.expert_imbalance,
        )

    def _memory(self, work: Workload) -> DeviceMemory:
        return device_memory(work, peak_memory(work))

    def _predict_if_fits(self, work: Workload) -> LayoutPrediction:
        """Predict what a search ranks by; what does not fit is not timed."""
        memory = self._memory(work)
        if memory.total_bytes <= self.job.card.memory_bytes:
            return self._timed(work, memory)
        return self._prediction(work, memory, inf, {})

    def _timed(self, work: Workload, memory: DeviceMemory) -> LayoutPrediction:
        step = self._times.step.step(work)
        return self._prediction(work, memory, step.seconds, step.terms)

    def _prediction(
        self, work: Workload, memory: DeviceMemory, seconds: float, terms: dict[str, float]
    ) -> LayoutPrediction:
        return LayoutPrediction(
            work=work,
            memory=memory,
            fits=memory.total_bytes <= self.job.card.memory_bytes,
            step_seconds=seconds,
            interval=self._band.around(seconds),
            terms=terms,
            flops_per_token=self._flops,
        )

    def _completed(self, prediction: LayoutPrediction) -> LayoutPrediction:
        """Add joules and limits."""
        work, job = prediction.work, self.job
        flops, terms = self._flops * job.batch.tokens / job.num_gpus, prediction.terms
        return replace(
            prediction,
            energy=self.energy(phase_seconds(terms)),
            limits=limits(work, job.card, prediction.memory, terms, flops, self._even_terms(work)),
        )

    def _even_terms(self, work: Workload) -> dict[str, float] | None:
        """Return the seconds of a step by term, had all experts the same load; None: they have."""
        execution = replace(work.execution, routing="forced")
        even = replace(work, execution=execution, expert_imbalance=1.0)
        is_uneven = work.execution.routing == "natural" or work.rank_imbalance > 1
        if not is_uneven or not any(work.shape.sparse_layers):
            return None
        return self._even_step.step(even).terms

    @cached_property
    def _even_step(self) -> StepTimes:
        """Seconds of the job with even loads: layers that are timed once have one load."""
        clock = SharedClock(self.job.card, self.job.precision)
        return StepTimes(clock, SharedLayerTimes(clock))

    def energy(self, seconds: Mapping[Phase, float]) -> StepEnergy | None:
        """Return the joules of a step; None where the card's power is unknown.

        Args:
            seconds: Of the step by phase, of cards that all do what those of the busiest stage do.
        """
        job, power = self.job, self.job.card.power
        if power is None or power.limit_watts is None or power.phases is None:
            return None
        site = replace(job.site, has_network=job.num_gpus > power.gpus_per_node)
        return step_energy(
            power, seconds, num_gpus=job.num_gpus, tokens=job.batch.tokens, site=site
        )


def _overlap(layout: Layout) -> dict[str, bool]:
    """Return the overlap of gradients and weights that a search turns on: what is not stated."""
    stated = layout.model_fields_set
    reduces = "overlap_grad_reduce" not in stated or layout.overlap_grad_reduce
    gathers = "overlap_param_gather" not in stated or layout.overlap_param_gather
    return {
        "overlap_grad_reduce": reduces,
        "overlap_param_gather": reduces and gathers and layout.distributed_optimizer,
    }
