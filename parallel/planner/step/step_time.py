"""Seconds of one optimizer step of a job: layers, ends, schedule, data parallelism."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from parallel.layout.validation import num_micro_batches
from parallel.planner.schedule.estimate import estimated_seconds
from parallel.planner.schedule.order import schedule_of
from parallel.planner.schedule.seconds import PassSeconds
from parallel.planner.schedule.simulation import simulate
from parallel.planner.schedule.timeline import StepTime
from parallel.planner.step.clock import Clock
from parallel.planner.step.data_parallel import chunk_ends
from parallel.planner.step.ends import embedding, head
from parallel.planner.step.layer import LayerTimes
from parallel.planner.step.seconds import TermSeconds
from parallel.planner.workload import Workload


@dataclass(frozen=True)
class StepBreakdown:
    """How long a step takes, and what the busiest stage spends it on."""

    seconds: float
    terms: dict[str, float]
    """Seconds by term; they add up to `seconds`. `waiting` is the rest: for other stages, for
    transfers between them, and for gradients and weights as far as no pass hides them."""
    busiest_stage: int


class StepTimes:
    """Seconds of steps on one kind of card; what jobs share is timed once."""

    def __init__(self, clock: Clock, layers: LayerTimes | None = None) -> None:
        self._clock = clock
        self._layers = layers or LayerTimes(clock)

    def layers_seconds(self, work: Workload) -> float:
        """Return the seconds of all layers of one micro-batch, had one stage them all."""
        return sum(
            count * _sum(self._layers.seconds(work, sparse=sparse, window=window))
            for (sparse, window), count in _kinds(work, range(work.shape.num_layers)).items()
        )

    def step(self, work: Workload) -> StepBreakdown:
        """Return the seconds of one step."""
        layout = work.layout
        layers = layout.chunk_layers(work.shape.num_layers)
        passes = [
            [self._chunk(work, stage, chunk, numbers) for chunk, numbers in enumerate(chunks)]
            for stage, chunks in enumerate(layers)
        ]
        micro_batches = num_micro_batches(work.placement, work.batch)
        schedule = schedule_of(layout, micro_batches)
        ends = chunk_ends(self._clock, work)
        own_layers = max(sum(map(len, chunks)) for chunks in layers)
        parameters = self._clock.parameters
        fixed = parameters.step_seconds + parameters.layer_step_seconds * own_layers
        seconds = fixed + estimated_seconds(schedule, self._schedule_passes(work, passes), ends)
        busy = [sum(_sum(chunk) for chunk in stage) for stage in passes]
        busiest = max(range(layout.pp), key=lambda stage: busy[stage])
        total = TermSeconds()
        for chunk in passes[busiest]:
            total.add_all(chunk, micro_batches)
        terms = defaultdict[str, float](
            float, {str(term): value for term, value in total.by_term().items()}
        )
        terms["optimizer"] = ends.optimizer[busiest]
        terms["host"] += fixed
        terms["waiting"] = seconds - sum(terms.values())
        return StepBreakdown(seconds, dict(terms), busiest)

    def timeline(self, work: Workload, micro_batches: int | None = None) -> StepTime:
        """Simulate a step pass by pass; of `micro_batches`, by default all."""
        layers = work.layout.chunk_layers(work.shape.num_layers)
        passes = [
            [self._chunk(work, stage, chunk, numbers) for chunk, numbers in enumerate(chunks)]
            for stage, chunks in enumerate(layers)
        ]
        count = micro_batches or num_micro_batches(work.placement, work.batch)
        ends = chunk_ends(self._clock, work)
        return simulate(schedule_of(work.layout, count), self._schedule_passes(work, passes), ends)

    def _chunk(self, work: Workload, stage: int, chunk: int, layers: range) -> TermSeconds:
        """Return the seconds of one micro-batch in one chunk, with the ends where it has them."""
        shape, layout, total = work.shape, work.layout, TermSeconds()
        for (sparse, window), count in _kinds(work, layers).items():
            total.add_all(self._layers.seconds(work, sparse=sparse, window=window), count)
        if stage == 0 and chunk == 0:
            total.add_all(embedding(self._clock, work))
        if stage == layout.pp - 1 and chunk == layout.vpp - 1:
            total.add_all(head(self._clock, work), 1 + shape.mtp_layers)
            if shape.mtp_layers:
                last = self._layers.seconds(
                    work, sparse=shape.sparse_layers[-1], window=shape.windows[-1]
                )
                total.add_all(last, shape.mtp_layers)
        return total

    def _schedule_passes(self, work: Workload, passes: list[list[TermSeconds]]) -> PassSeconds:
        return PassSeconds(
            forward=tuple(tuple(chunk.forward_seconds for chunk in stage) for stage in passes),
            backward=tuple(tuple(chunk.backward_seconds for chunk in stage) for stage in passes),
            transfer=self._clock.send(work) if work.layout.pp > 1 else 0.0,
            transfer_blocks=work.layout.vpp == 1,
        )


def _kinds(work: Workload, layers: range) -> Counter[tuple[bool, int | None]]:
    shape = work.shape
    return Counter((shape.sparse_layers[layer], shape.windows[layer]) for layer in layers)


def _sum(seconds: TermSeconds) -> float:
    return seconds.forward_seconds + seconds.backward_seconds
