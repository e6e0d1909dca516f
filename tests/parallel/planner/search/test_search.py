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
from parallel.planner.search.search import checked, search
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


def seconds(work: Workload) -> float:
    """A made-up time of all layers that knows tensor, expert parallelism and recomputation."""
    layout = work.layout
    again = {"none": 3.0, "selective": 3.3, "full": 4.0}[layout.recompute]
    exchange = 0.2 * (layout.ep > 1) * (0.5 if layout.overlap_experts else 1.0)
    return again * work.tokens * (1 / layout.tp + 0.1 * (layout.tp > 1) + exchange)


def predict(work: Workload) -> LayoutPrediction:
    """Predict what the bound says, and something more."""
    layout, batch = work.layout, work.batch
    rounds = batch.global_batch_size / (batch.micro_batch_size * work.placement.dp)
    step = seconds(work) * (rounds + (layout.pp - 1) / layout.vpp) / layout.pp
    step *= 1.0 + 0.05 * layout.cp + 0.03 * batch.micro_batch_size
    memory = device_memory(work, peak_memory(work))
    return LayoutPrediction(
        work=work, memory=memory, fits=layout.ep * layout.pp >= 2, step_seconds=step,
        interval=(step, step), terms={}, flops_per_token=1, limits=(),
    )  # fmt: skip


def test_the_bound_leaves_out_nothing_better() -> None:
    few = search(WORK, BOUNDS, predict=predict, layers=seconds, memory_bytes=1e12, count=3)
    all_of_them = search(
        WORK, BOUNDS, predict=predict, layers=seconds, memory_bytes=1e12, count=10**6
    )
    assert few.predicted < all_of_them.predicted == all_of_them.candidates
    assert len(all_of_them.best) == all_of_them.predicted - all_of_them.too_large
    times = [prediction.step_seconds for prediction in all_of_them.best]
    assert times == sorted(times)
    assert [prediction.step_seconds for prediction in few.best] == times[:3]


def test_nothing_that_fits_and_nothing_legal_are_told_apart() -> None:
    small = search(WORK, BOUNDS, predict=predict, layers=seconds, memory_bytes=1.0, count=3)
    with pytest.raises(ParallelError, match=r"^gpus=8: no layout"):
        checked(small, RANKS)
    misfit = replace(predict(WORK), fits=False)
    none = search(
        WORK, BOUNDS, predict=lambda _: misfit, layers=seconds, memory_bytes=1e12, count=3
    )
    with pytest.raises(ParallelError, match=r"^gpus=8: none of [\d,]+ layouts fits in memory"):
        checked(none, RANKS)
