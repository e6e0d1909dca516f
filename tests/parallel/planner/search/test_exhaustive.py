"""The pruned search against all layouts in all ways, with the real model of time and memory."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import pytest

from parallel.hardware.card import load_card
from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape
from parallel.layout.placement import place
from parallel.planner.device_memory import device_memory
from parallel.planner.memory import peak_memory
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.candidates import Bounds, Candidate, candidates
from parallel.planner.search.ranking import Ranking
from parallel.planner.search.search import search
from parallel.planner.search.shared_times import ModelTimes, SharedClock, SharedLayerTimes
from parallel.planner.search.ways import Ways
from parallel.planner.step.step_time import StepTimes
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision
from tests.parallel.planner.step.test_step_time import BATCH, SHAPE

RANKS = 8
BOUNDS = Bounds(
    ranks=RANKS, seq_len=BATCH.seq_len, global_batch_size=64, largest_tp=2, micro_batches=(2,),
    exchange_libraries=("alltoall", "deepep"), fewest_tokens=2048,
)  # fmt: skip
PRECISION = Precision(kernels="te", dtype="bf16")
EXACT = 1 + 1e-9
NEXT_TO = 2e-3


class Times:
    """Predicts jobs of one model on H100s, and holds its ways."""

    def __init__(self, shape: ModelShape, imbalance: float) -> None:
        batch = replace(BATCH, global_batch_size=64)
        self.work = Workload(
            shape=shape, placement=place(Layout(), 1), batch=batch, precision=PRECISION,
            expert_imbalance=imbalance,
        )  # fmt: skip
        clock = SharedClock(load_card("h100"), PRECISION)
        layers = SharedLayerTimes(clock)
        self._steps = StepTimes(clock, layers)
        self.ways = Ways(self.work, ModelTimes(clock, layers), BOUNDS.exchange_libraries)

    def predict(self, work: Workload, memory_bytes: float) -> LayoutPrediction:
        memory = device_memory(work, peak_memory(work))
        seconds = self._steps.step(work).seconds
        return LayoutPrediction(
            work=work, memory=memory, fits=memory.total_bytes <= memory_bytes,
            step_seconds=seconds, interval=(seconds, seconds), terms={}, flops_per_token=1,
        )  # fmt: skip

    def every_way(self, candidate: Candidate) -> Iterator[list[LayoutPrediction]]:
        """Yield for each recomputation the predictions of all exchanges; check their bounds."""
        sizes, stages, dp = candidate
        batch = replace(self.work.batch, micro_batch_size=sizes.micro_batch_size)
        count = batch.global_batch_size // (batch.micro_batch_size * dp)
        mean = self.ways.bound(sizes).of_mean_stages(stages.pp, count / stages.pp)
        for number in range(len(self.ways.recomputations)):
            saved = self.ways.saved_bytes(sizes, number)
            least = self.ways.least.total_bytes(candidate, saved, count)
            predictions = []
            ways = self.ways.fastest_first(sizes, number, paired=stages.is_interleaved)
            for way in ways:
                layout = candidate.layout(Layout(), way.choice)
                job = replace(self.work, placement=place(layout, RANKS), batch=batch)
                one = self.predict(job, inf)
                bound = way.bound.of_all_stages(stages, count)
                assert mean <= bound * EXACT
                assert bound <= one.step_seconds * EXACT
                assert least <= one.memory.total_bytes
                predictions.append(one)
            yield predictions


@pytest.mark.parametrize(
    ("shape", "imbalance"),
    [
        (SHAPE, 1.0),
        (SHAPE, 2.0),
        (replace(SHAPE, mtp_layers=1), 1.0),
        (replace(SHAPE, sparse_layers=(False,) * 3, num_experts=0), 1.0),
    ],
    ids=["sparse", "uneven", "multi-token", "dense-odd-depth"],
)
def test_a_pruned_search_finds_what_an_exhaustive_one_does(
    shape: ModelShape, imbalance: float
) -> None:
    """No prediction is below its bounds; of each recomputation, the best exchange that fits."""
    times = Times(shape, imbalance)
    every = [ways for one in candidates(shape, BOUNDS) for ways in times.every_way(one)]
    assert len(every) > 20
    sizes = sorted(min(one.memory.total_bytes for one in ways) for ways in every)
    for room in (sizes[-1], sizes[len(sizes) // 2], sizes[len(sizes) // 8]):
        ranking = Ranking(5, room)
        for ways in every:
            fitting = [one for one in ways if one.memory.total_bytes <= room]
            if fitting:
                ranking.add(min(fitting, key=lambda one: one.step_seconds))
        few = search(
            times.work, BOUNDS, times.ways, memory_bytes=room, count=5,
            predict=lambda work, room=room: times.predict(work, room),
        )  # fmt: skip
        assert few.candidates == len(every)
        assert few.predicted < len(every)
        # Exchanges are chosen by the seconds of layers: next to the same as by those of steps.
        assert [row.one.step_seconds for row in few.rows] == pytest.approx(
            [row.one.step_seconds for row in ranking.rows()], rel=NEXT_TO
        )
