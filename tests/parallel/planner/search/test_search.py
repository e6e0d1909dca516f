"""The search: every legal layout is a candidate, and none better is left out by its bound."""

from dataclasses import replace
from itertools import product

import pytest

from parallel.errors import ParallelError
from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape
from parallel.layout.placement import place
from parallel.layout.validation import layout_faults
from parallel.planner.device_memory import device_memory
from parallel.planner.memory import peak_memory
from parallel.planner.prediction import LayoutPrediction
from parallel.planner.search.candidates import Bounds, candidates
from parallel.planner.search.choices import Choice
from parallel.planner.search.ranking import MEMORY_STEP
from parallel.planner.search.search import Found, Keep, checked, search
from parallel.planner.search.shared_times import ModelSeconds, layer_kinds
from parallel.planner.search.ways import Ways
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision
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
    found = [
        (sizes.tp, sizes.cp, stages.pp, stages.vpp, sizes.ep, sizes.etp, sizes.micro_batch_size)
        for sizes, stages, _ in candidates(shape, BOUNDS)
        if not (stages.ends_count_as_layers or stages.stage_layers)
    ]
    assert len(found) == len(set(found))
    assert set(found) == legal(shape)


def test_candidates_have_what_is_asked_for() -> None:
    only = {"tp": 2, "pp": 2, "ep": 4, "dp": 2, "micro_batch_size": 1}
    found = set(candidates(SPARSE, replace(BOUNDS, only=only)))
    assert found
    assert found == {
        one
        for one in candidates(SPARSE, BOUNDS)
        if only.items() <= {**one.sizes._asdict(), **one.stages._asdict(), "dp": one.dp}.items()
    }


@pytest.mark.parametrize(
    ("sparse", "uneven"),
    [(5, {(2, 2), (4, 1)}), (6, {(2, 1), (2, 2), (4, 1)})],
    ids=["ends-count", "as-even-as-can-be"],
)
def test_candidates_with_uneven_stages_are_legal_too(
    sparse: int, uneven: set[tuple[int, int]]
) -> None:
    shape = replace(SPARSE, sparse_layers=(False, *[True] * sparse))
    found = [
        one
        for one in candidates(shape, BOUNDS)
        if one.stages.ends_count_as_layers or one.stages.stage_layers
    ]
    assert {(one.stages.pp, one.stages.vpp) for one in found} == uneven
    for candidate in found:
        batch = replace(BATCH, micro_batch_size=candidate.sizes.micro_batch_size)
        assert layout_faults(candidate.layout(Layout(), {}), shape, batch, RANKS) == []


def test_a_heavy_head_takes_a_layer_off_the_last_chunk() -> None:
    heavy = replace(SPARSE, vocab_size=480)
    found = {one.stages.stage_layers for one in candidates(heavy, BOUNDS)}
    assert found >= {(3, 1), None}
    assert {one.stages.stage_layers for one in candidates(SPARSE, BOUNDS)} == {None}


def model(work: Workload, *, exchanges: bool = True) -> ModelSeconds:
    """A made-up time of layers that knows tensor, expert parallelism and recomputation."""
    layout = work.layout
    again = {"none": 3.0, "selective": 3.3, "full": 4.0}[layout.recompute]
    exchange = 0.2 * (layout.ep > 1) * (0.5 if layout.overlap_experts else 1.0) * exchanges
    seconds = again * work.tokens * (1 / layout.tp + 0.1 * (layout.tp > 1) + exchange)
    kinds = layer_kinds(work.shape)
    return ModelSeconds(dict.fromkeys(kinds, seconds), 0.1 * seconds, 0.4 * seconds)


def predict(work: Workload) -> LayoutPrediction:
    """Predict what the bound of the last stage says, and something more."""
    layout, batch, each = work.layout, work.batch, model(work)
    micro_batches = batch.global_batch_size // (batch.micro_batch_size * work.placement.dp)
    layers = sum(each.by_kind[kind] for kind in layer_kinds(work.shape))
    whole = layers + each.embedding + each.head
    step = whole * (micro_batches + layout.pp - 1) * (1.0 + 0.05 * layout.cp)
    memory = device_memory(work, peak_memory(work))
    return LayoutPrediction(
        work=work, memory=memory, fits=layout.ep * layout.pp >= 2, step_seconds=step,
        interval=(step, step), terms={}, flops_per_token=1, limits=(),
    )  # fmt: skip


def found(
    count: int, *, bounds: Bounds = BOUNDS, memory_bytes: float = 1e12, horizon: float = 1.0,
    keep: Keep | None = None,
) -> Found:  # fmt: skip
    """Search with the made-up times."""
    return search(
        WORK, bounds, Ways(WORK, model, bounds.exchange_libraries), predict=predict,
        memory_bytes=memory_bytes, count=count, horizon=horizon, keep=keep,
    )  # fmt: skip


def test_the_bound_leaves_out_nothing_better() -> None:
    few, every = found(3), found(10**6)
    assert few.predicted < every.predicted
    assert len(every.fitting) == every.candidates - every.too_large
    times = sorted(prediction.step_seconds for prediction in every.fitting)
    assert [row.one.step_seconds for row in few.rows] == [
        row.one.step_seconds for row in every.rows[:3]
    ]
    assert few.rows[0].one.step_seconds == times[0]
    # Each that is as fast as the last row is a row or near one.
    shown = [one for row in few.rows for one in (row.one, *row.near)]
    last = few.rows[-1].one.step_seconds
    assert sorted(one.step_seconds for one in shown if one.step_seconds < last) == [
        seconds for seconds in times if seconds < last
    ]


def test_up_to_a_horizon_smaller_layouts_are_looked_for() -> None:
    """All on the front of seconds and memory are found, but for 5% of a card's memory."""
    room = 2.5e9
    every, few = found(10**6, memory_bytes=room), found(1, memory_bytes=room, horizon=3)
    assert few.predicted < every.predicted
    fastest = few.best[0].step_seconds
    assert fastest == every.best[0].step_seconds
    for one in every.fitting:
        if one.step_seconds <= 3 * fastest:
            assert any(
                other.step_seconds <= one.step_seconds
                and other.memory.total_bytes <= one.memory.total_bytes + MEMORY_STEP * room
                for other in few.fitting
            )


def test_only_what_is_asked_for_is_looked_at() -> None:
    def keep(choice: Choice) -> bool:
        return bool(choice["recompute"] == "full")

    asked = found(10**6, bounds=replace(BOUNDS, only={"pp": 2}), keep=keep)
    layouts = [one.work.layout for one in asked.fitting]
    assert layouts
    assert {(layout.pp, layout.recompute) for layout in layouts} == {(2, "full")}


def test_nothing_that_fits_and_nothing_legal_are_told_apart() -> None:
    small = found(3, memory_bytes=1.0)
    assert small.predicted == 0
    assert small.too_large == small.candidates > 0
    with pytest.raises(ParallelError, match=r"^gpus=8: none of [\d,]+ layouts fits in memory"):
        checked(small, RANKS, "H100")
    none = found(3, bounds=replace(BOUNDS, global_batch_size=1, ranks=7))
    with pytest.raises(ParallelError, match=r"^gpus=7: no layout"):
        checked(none, 7, "H100")
