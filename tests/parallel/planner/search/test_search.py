"""The search: every legal layout is a candidate, and none better is left out by its bound."""

from dataclasses import replace
from itertools import product
from math import inf

import pytest

from parallel.errors import ParallelError
from parallel.hardware.card import load_card
from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape
from parallel.layout.placement import place
from parallel.layout.validation import layout_faults
from parallel.planner.device_memory import device_memory
from parallel.planner.memory import peak_memory
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.candidates import Bounds, Candidate, candidates
from parallel.planner.search.choices import Choice
from parallel.planner.search.least_memory import LeastMemory
from parallel.planner.search.search import MEMORY_STEP, Found, checked, search
from parallel.planner.search.shared_times import (
    ModelSeconds,
    ModelTimes,
    SharedClock,
    SharedLayerTimes,
    layer_kinds,
)
from parallel.planner.search.stage_bound import StageBound
from parallel.planner.step.step_time import StepTimes
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision
from tests.parallel.planner.step.test_step_time import BATCH as MEDIUM_BATCH
from tests.parallel.planner.step.test_step_time import SHAPE as MEDIUM
from tests.support.model_shapes import BATCH, DENSE, SPARSE

RANKS = 8
BOUNDS = Bounds(
    ranks=RANKS, seq_len=BATCH.seq_len, global_batch_size=BATCH.global_batch_size, largest_tp=8,
    fewest_tokens=1,
)  # fmt: skip
WORK = Workload(
    shape=SPARSE, placement=place(Layout(), 1), batch=BATCH,
    precision=Precision(kernels="te", dtype="bf16"),
)  # fmt: skip


def legal(shape: ModelShape) -> set[tuple[int, ...]]:
    """Return tp, cp, pp, vpp, ep, etp and micro-batch of all even layouts without a fault."""
    sizes = (1, 2, 4, 8)
    found = set()
    for tp, cp, pp, vpp, ep, etp, size in product(sizes, sizes, sizes, (1, 2, 4), *[sizes] * 3):
        if vpp > 1 and pp == 1:
            continue
        layout = Layout(tp=tp, cp=cp, pp=pp, vpp=vpp, ep=ep, etp=etp)
        batch = replace(BATCH, micro_batch_size=size)
        if not layout_faults(layout, shape, batch, RANKS):
            found.add((tp, cp, pp, vpp, ep, etp, size))
    return found


@pytest.mark.parametrize("shape", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_candidates_are_the_legal_layouts(shape: ModelShape) -> None:
    found = [c for c in candidates(shape, BOUNDS) if not (c.ends_count_as_layers or c.stage_layers)]
    sizes = [(c.tp, c.cp, c.pp, c.vpp, c.ep, c.etp, c.micro_batch_size) for c in found]
    assert len(sizes) == len(set(sizes))
    assert set(sizes) == legal(shape)


def test_candidates_with_uneven_stages_are_legal_too() -> None:
    shape = replace(SPARSE, sparse_layers=(False, *[True] * 5))
    uneven = [c for c in candidates(shape, BOUNDS) if c.ends_count_as_layers or c.stage_layers]
    assert uneven
    for candidate in uneven:
        batch = replace(BATCH, micro_batch_size=candidate.micro_batch_size)
        assert layout_faults(candidate.layout(Layout(), {}), shape, batch, RANKS) == []


def model(work: Workload) -> ModelSeconds:
    """A made-up time of layers that knows tensor, expert parallelism and recomputation."""
    layout = work.layout
    again = {"none": 3.0, "selective": 3.3, "full": 4.0}[layout.recompute]
    exchange = 0.2 * (layout.ep > 1) * (0.5 if layout.overlap_experts else 1.0)
    seconds = again * work.tokens * (1 / layout.tp + 0.1 * (layout.tp > 1) + exchange)
    kinds = layer_kinds(work.shape)
    return ModelSeconds(kinds, dict.fromkeys(kinds, seconds), 0.1 * seconds, 0.4 * seconds)


def predict(work: Workload) -> LayoutPrediction:
    """Predict what the bound of the last stage says, and something more."""
    layout, batch, each = work.layout, work.batch, model(work)
    micro_batches = batch.global_batch_size // (batch.micro_batch_size * work.placement.dp)
    whole = sum(each.layers) + each.embedding + each.head
    step = whole * (micro_batches + layout.pp - 1) * (1.0 + 0.05 * layout.cp)
    memory = device_memory(work, peak_memory(work))
    return LayoutPrediction(
        work=work, memory=memory, fits=layout.ep * layout.pp >= 2, step_seconds=step,
        interval=(step, step), terms={}, flops_per_token=1, limits=(),
    )  # fmt: skip


def test_the_bound_leaves_out_nothing_better() -> None:
    few = search(WORK, BOUNDS, predict=predict, model=model, memory_bytes=1e12, count=3)
    all_of_them = search(WORK, BOUNDS, predict=predict, model=model, memory_bytes=1e12, count=10**6)
    assert few.predicted < all_of_them.predicted == all_of_them.candidates
    assert len(all_of_them.best) == all_of_them.predicted - all_of_them.too_large
    times = [prediction.step_seconds for prediction in all_of_them.best]
    assert times == sorted(times)
    assert [prediction.step_seconds for prediction in few.best] == times[:3]


def test_up_to_a_horizon_smaller_layouts_are_looked_for() -> None:
    """All on the front of seconds and memory are found, but for 5% of memory."""
    every = search(WORK, BOUNDS, predict=predict, model=model, memory_bytes=1e12, count=10**6)
    few = search(WORK, BOUNDS, predict=predict, model=model, memory_bytes=1e12, count=1, horizon=3)
    assert few.predicted < every.predicted
    fastest = few.best[0].step_seconds
    assert fastest == every.best[0].step_seconds
    for one in every.fitting:
        if one.step_seconds <= 3 * fastest:
            assert any(
                other.step_seconds <= one.step_seconds
                and (1 - MEMORY_STEP) * other.memory.total_bytes <= one.memory.total_bytes
                for other in few.fitting
            )


def test_only_what_is_asked_for_is_looked_at() -> None:
    def keep(candidate: Candidate, choice: Choice) -> bool:
        return candidate.pp == 2 and choice["recompute"] == "full"

    found = search(
        WORK, BOUNDS, predict=predict, model=model, memory_bytes=1e12, count=10**6, keep=keep
    )
    layouts = [one.work.layout for one in found.best]
    assert layouts
    assert {(layout.pp, layout.recompute) for layout in layouts} == {(2, "full")}


def test_nothing_that_fits_and_nothing_legal_are_told_apart() -> None:
    small = search(WORK, BOUNDS, predict=predict, model=model, memory_bytes=1.0, count=3)
    assert small.predicted == 0
    assert small.too_large == small.candidates > 0
    with pytest.raises(ParallelError, match=r"^gpus=8: none of [\d,]+ layouts fits in memory"):
        checked(small, RANKS, "H100")
    odd = replace(BOUNDS, global_batch_size=1, ranks=7)
    none = search(WORK, odd, predict=predict, model=model, memory_bytes=1e12, count=3)
    with pytest.raises(ParallelError, match=r"^gpus=7: no layout"):
        checked(none, 7, "H100")


MEDIUM_BOUNDS = replace(
    BOUNDS, seq_len=MEDIUM_BATCH.seq_len, global_batch_size=64, micro_batches=(2,),
    exchange_libraries=("alltoall", "deepep"), fewest_tokens=1024,
)  # fmt: skip
MEDIUM_WORK = replace(WORK, shape=MEDIUM, batch=MEDIUM_BATCH)


def whole_search(memory_bytes: float, count: int, shape: ModelShape) -> tuple[Found, list[float]]:
    """Search with the real times; returns what was found, and bound over prediction of all."""
    card, ratios = load_card("h100"), []
    clock = SharedClock(card, WORK.precision)
    layers = SharedLayerTimes(clock)
    steps, times = StepTimes(clock, layers), ModelTimes(clock, layers)

    def predict(work: Workload) -> LayoutPrediction:
        memory = device_memory(work, peak_memory(work))
        seconds = steps.step(work).seconds
        layout = work.layout
        candidate = Candidate(
            layout.tp, layout.cp, layout.pp, layout.vpp, layout.ep, layout.expert_tp,
            work.batch.micro_batch_size, work.placement.dp, layout.ends_count_as_layers,
            layout.stage_layers,
        )  # fmt: skip
        count = 64 // (work.batch.micro_batch_size * work.placement.dp)
        bound = StageBound(times(work))
        mean = bound.of_mean_stage(candidate, count)
        assert mean <= bound.of_all_stages(candidate, count) * (1 + 1e-9)
        ratios.append(bound.of_all_stages(candidate, count) / seconds)
        least = LeastMemory(work).total_bytes(candidate, work, count)
        assert least <= memory.total_bytes
        return LayoutPrediction(
            work=work, memory=memory, fits=memory.total_bytes <= memory_bytes,
            step_seconds=seconds, interval=(seconds, seconds), terms={}, flops_per_token=1,
        )  # fmt: skip

    found = search(
        replace(MEDIUM_WORK, shape=shape), MEDIUM_BOUNDS, predict=predict, model=times,
        memory_bytes=memory_bytes, count=count,
    )  # fmt: skip
    return found, ratios


@pytest.mark.parametrize(
    "shape",
    [
        MEDIUM,
        replace(MEDIUM, mtp_layers=1),
        replace(MEDIUM, sparse_layers=(False,) * 3, num_experts=0),
    ],
    ids=["sparse", "multi-token", "dense-odd-depth"],
)
def test_a_pruned_search_finds_what_an_exhaustive_one_does(shape: ModelShape) -> None:
    """With the real model of time: no prediction is below its bounds, none that is best is lost."""
    every, ratios = whole_search(inf, 10**6, shape)
    assert every.predicted == every.candidates == len(ratios) > 50
    assert max(ratios) <= 1 + 1e-9
    sizes = sorted(one.memory.total_bytes for one in every.best)
    room = sizes[3 * len(sizes) // 4]
    fitting = [one for one in every.best if one.memory.total_bytes <= room]
    few, _ = whole_search(room, 5, shape)
    assert few.predicted <= every.predicted
    assert [one.step_seconds for one in few.best] == [one.step_seconds for one in fitting[:5]]
