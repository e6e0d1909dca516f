"""Orders of passes: by hand, and as megatron-core makes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.layout.layout import Layout
from parallel.planner.schedule.order import (
    Schedule,
    chunks_in_flight,
    forward_table,
    schedule_of,
    stage_order,
    warm_up_passes,
)
from tests.support.distributed import run_ranks
from tests.support.schedule_orders import engine_orders

CASES = [
    (pp, vpp, count, paired)
    for pp in (1, 2, 4)
    for vpp in (1, 2, 3)
    for count in (1, 4, 8)
    for paired in (False, True)
    if (vpp == 1 or (pp > 1 and count % pp == 0)) and not (paired and vpp == 1)
]


def signed(schedule: Schedule, stage: int) -> list[int]:
    """Chunks from one in turn, negative for backward passes."""
    return [
        one.chunk + 1 if one.kind == "forward" else -one.chunk - 1
        for one in stage_order(schedule, stage)
    ]


def test_one_forward_one_backward_by_hand() -> None:
    schedule = Schedule(pp=2, micro_batches=3)
    first, last = (
        [(one.kind[0], one.micro_batch) for one in stage_order(schedule, stage)] for stage in (0, 1)
    )
    assert first == [("f", 0), ("f", 1), ("b", 0), ("f", 2), ("b", 1), ("b", 2)]
    assert last == [("f", 0), ("b", 0), ("f", 1), ("b", 1), ("f", 2), ("b", 2)]


def test_interleaved_by_hand() -> None:
    schedule = Schedule(pp=2, vpp=2, micro_batches=2)
    assert signed(schedule, 0) == [1, 1, 2, 2, -2, -2, -1, -1]
    assert signed(schedule, 1) == [1, 1, 2, -2, 2, -2, -1, -1]


@pytest.mark.engine
def test_orders_are_megatron_cores() -> None:
    """`get_schedule_table`, `get_pp_rank_microbatches` and `convert_schedule_table_to_order`."""
    theirs = run_ranks(1, engine_orders, CASES)[0]
    for (pp, vpp, count, paired), (table, orders) in zip(CASES, theirs, strict=True):
        schedule = Schedule(pp=pp, vpp=vpp, micro_batches=count, paired=paired)
        assert forward_table(schedule) == table
        assert [signed(schedule, stage) for stage in range(pp)] == orders


@given(pp=st.integers(1, 6), vpp=st.integers(1, 4), groups=st.integers(1, 4), paired=st.booleans())
def test_each_pass_runs_once_and_backward_after_forward(
    pp: int, vpp: int, groups: int, paired: bool
) -> None:
    schedule = Schedule(pp=pp, vpp=vpp, micro_batches=groups * pp, paired=paired)
    for stage in range(pp):
        order = stage_order(schedule, stage)
        assert len(set(order)) == len(order) == 2 * schedule.passes
        waiting = peak = 0
        for one in order:
            waiting += 1 if one.kind == "forward" else -1
            peak = max(peak, waiting)
            assert order.index(one._replace(kind="forward")) <= order.index(one)
        shares = paired and warm_up_passes(schedule, stage) < schedule.passes
        in_flight = chunks_in_flight(schedule, stage)
        assert sum(in_flight) == peak - shares
        first = forward_table(schedule)[: peak - shares]
        assert in_flight == [sum(c == chunk for _, c in first) for chunk in range(vpp)]


@given(pp=st.integers(1, 4), vpp=st.integers(1, 3), count=st.integers(1, 9))
def test_numbers_of_passes_are_theirs_alone(pp: int, vpp: int, count: int) -> None:
    schedule = Schedule(pp=pp, vpp=vpp, micro_batches=count)
    every = [schedule.numbered(number) for number in range(2 * schedule.passes)]
    assert len(set(every)) == 2 * schedule.passes
    assert [schedule.number(k, c, m) for k, m, c in every] == list(range(2 * schedule.passes))


def test_overlapped_experts_run_one_forward_pass_more_ahead() -> None:
    alone = Layout(ep=2, overlap_experts=True)
    assert warm_up_passes(schedule_of(alone, 8), 0) == 1
    interleaved = Layout(ep=2, pp=2, vpp=2, overlap_experts=True)
    assert warm_up_passes(schedule_of(interleaved, 8), 0) == 2 + 2 + 1
    assert not schedule_of(Layout(ep=2, pp=2, vpp=2), 8).paired
