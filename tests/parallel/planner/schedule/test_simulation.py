"""The simulated pipeline: closed forms, causality, bounds, both ends of the step, the trace."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.planner.schedule.estimate import (
    estimated_seconds,
    even_seconds,
    lower_bound_seconds,
)
from parallel.planner.schedule.order import PassKind, Schedule, warm_up_passes
from parallel.planner.schedule.seconds import EndSeconds, PassSeconds, even
from parallel.planner.schedule.simulation import simulate
from parallel.planner.schedule.timeline import StepTime, TimedPass
from parallel.planner.schedule.trace import trace

SECONDS = st.floats(0.1, 3.0)


@st.composite
def schedules(draw: st.DrawFn, *, paired: bool | None = None) -> Schedule:
    pp = draw(st.integers(1, 5))
    vpp = draw(st.integers(1, 3)) if pp > 1 else 1
    groups = draw(st.integers(1, 4))
    rest = draw(st.integers(0, pp - 1)) if vpp == 1 else 0
    can_pair = pp == 1 or vpp > 1
    pairs = can_pair and (draw(st.booleans()) if paired is None else paired)
    return Schedule(pp=pp, vpp=vpp, micro_batches=groups * pp + rest, paired=pairs)


@st.composite
def uneven_jobs(draw: st.DrawFn) -> tuple[Schedule, PassSeconds]:
    schedule = draw(schedules())

    def by_chunk() -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(draw(SECONDS) for _ in range(schedule.vpp)) for _ in range(schedule.pp))

    return schedule, PassSeconds(
        forward=by_chunk(),
        backward=by_chunk(),
        transfer=draw(st.floats(0, 0.5)),
        transfer_blocks=draw(st.booleans()),
        paired_saving=even(draw(st.floats(0, 0.1)), pp=schedule.pp, vpp=schedule.vpp),
    )


def run_even(schedule: Schedule, forward: float, backward: float, **more: Any) -> StepTime:
    pp, vpp = schedule.pp, schedule.vpp
    seconds = PassSeconds(
        forward=even(forward, pp=pp, vpp=vpp), backward=even(backward, pp=pp, vpp=vpp), **more
    )
    return simulate(schedule, seconds)


@given(schedule=schedules(paired=False), forward=SECONDS, backward=SECONDS)
def test_even_stages_take_the_closed_form(
    schedule: Schedule, forward: float, backward: float
) -> None:
    """arXiv:2104.04473: whole stages of f + b, a bubble of (p - 1) / v of them."""
    m, p, v = schedule.micro_batches, schedule.pp, schedule.vpp
    found = run_even(schedule, forward, backward)
    assert found.seconds == pytest.approx((m + (p - 1) / v) * v * (forward + backward))
    assert found.seconds == pytest.approx(even_seconds(schedule, forward, backward))
    assert found.bubble_share == pytest.approx((p - 1) / (m * v + p - 1))


@given(pp=st.integers(2, 5), vpp=st.integers(2, 3), groups=st.integers(2, 4), data=st.data())
def test_interleaved_transfers_show_only_at_the_ends(
    pp: int, vpp: int, groups: int, data: st.DataObject
) -> None:
    schedule = Schedule(pp=pp, vpp=vpp, micro_batches=groups * pp)
    forward, backward = data.draw(SECONDS), data.draw(SECONDS)
    transfer = data.draw(st.floats(0, min(forward, backward) / (4 * pp)))
    found = run_even(schedule, forward, backward, transfer=transfer)
    assert found.seconds == pytest.approx(
        even_seconds(schedule, forward, backward, transfer=transfer)
    )


@given(schedule=schedules(paired=True), forward=SECONDS, backward=SECONDS, share=st.floats(0, 1))
def test_pairs_save_what_they_hide(
    schedule: Schedule, forward: float, backward: float, share: float
) -> None:
    saving = share * min(forward, backward) / 2
    found = run_even(
        schedule, forward, backward, paired_saving=even(saving, pp=schedule.pp, vpp=schedule.vpp)
    )
    expected = even_seconds(schedule, forward, backward, saving=saving)
    assert found.seconds == pytest.approx(expected)


def test_blocking_transfers_cost_a_sender_its_time() -> None:
    # Two stages, one micro-batch: F, send, F, B, send, B.
    schedule = Schedule(pp=2, micro_batches=1)
    found = run_even(schedule, 1.0, 2.0, transfer=0.25, transfer_blocks=True)
    assert found.seconds == 6.5
    many = Schedule(pp=2, micro_batches=16)
    waits, goes_on = (
        run_even(many, 1.0, 2.0, transfer=0.25, transfer_blocks=blocks).seconds
        for blocks in (True, False)
    )
    assert waits > goes_on > run_even(many, 1.0, 2.0).seconds


def before(schedule: Schedule, one: TimedPass) -> tuple[int, PassKind, int] | None:
    """Stage, kind and chunk of the pass whose result this one needs."""
    last_stage, last_chunk = schedule.pp - 1, schedule.vpp - 1
    if one.kind == "forward":
        if one.stage:
            return one.stage - 1, "forward", one.chunk
        return (last_stage, "forward", one.chunk - 1) if one.chunk else None
    if one.stage < last_stage:
        return one.stage + 1, "backward", one.chunk
    if one.chunk < last_chunk:
        return 0, "backward", one.chunk + 1
    return one.stage, "forward", one.chunk


@given(job=uneven_jobs())
def test_nothing_starts_before_its_input_and_no_stage_does_two_things_at_once(
    job: tuple[Schedule, PassSeconds],
) -> None:
    schedule, seconds = job
    step = simulate(schedule, seconds)
    passes = list(step.passes())
    assert len(passes) == 2 * schedule.pp * schedule.passes
    ends = {(p.stage, p.kind, p.chunk, p.micro_batch): p.end_s for p in passes}
    assert len(ends) == len(passes)
    stretches: dict[int, set[tuple[float, float]]] = defaultdict(set)
    for one in passes:
        stretches[one.stage].add((one.start_s, one.end_s))
        source = before(schedule, one)
        if source is None:
            continue
        transfer = seconds.transfer if source[0] != one.stage else 0.0
        assert one.start_s >= ends[(*source, one.micro_batch)] + transfer - 1e-9
    for each in stretches.values():
        for (_, end), (start, _) in pairwise(sorted(each)):
            assert start >= end - 1e-9
    assert step.seconds == pytest.approx(max(p.end_s for p in passes))


@given(job=uneven_jobs())
def test_no_step_is_shorter_than_the_bound_or_longer_than_one_thing_at_a_time(
    job: tuple[Schedule, PassSeconds],
) -> None:
    schedule, seconds = job
    step = simulate(schedule, seconds)
    assert step.seconds >= lower_bound_seconds(schedule, seconds) - 1e-9
    work = sum(map(sum, seconds.forward)) + sum(map(sum, seconds.backward))
    transfers = 4 * schedule.pp * schedule.vpp * seconds.transfer
    assert step.seconds <= schedule.micro_batches * (work + transfers) + 1e-9
    for stage in step.stages:
        assert stage.bubble_s >= -1e-9
        assert stage.busy_s + stage.bubble_s == pytest.approx(step.seconds)


@given(pp=st.integers(1, 4), vpp=st.integers(1, 3), groups=st.integers(1, 12), data=st.data())
def test_the_extrapolated_step_is_near_the_simulated_one(
    pp: int, vpp: int, groups: int, data: st.DataObject
) -> None:
    vpp = vpp if pp > 1 else 1
    rest = data.draw(st.integers(0, pp - 1)) if vpp == 1 else 0
    schedule = Schedule(pp=pp, vpp=vpp, micro_batches=groups * pp + rest)
    lengths = st.floats(1.0, 1.5)
    forward, backward = (
        tuple(tuple(data.draw(lengths) for _ in range(vpp)) for _ in range(pp)) for _ in range(2)
    )
    seconds = PassSeconds(forward=forward, backward=backward, transfer=0.05)
    found = simulate(schedule, seconds).seconds
    assert estimated_seconds(schedule, seconds) == pytest.approx(found, rel=0.03)
    one_length = PassSeconds(forward=even(1.0, pp=pp, vpp=vpp), backward=even(2.0, pp=pp, vpp=vpp))
    exact = even_seconds(schedule, 1.0, 2.0)
    assert estimated_seconds(schedule, one_length) == pytest.approx(exact)


def test_there_is_no_closed_form_where_each_round_waits() -> None:
    with pytest.raises(ValueError, match="no closed form"):
        even_seconds(Schedule(pp=4, micro_batches=8), 1.0, 2.0, transfer=0.1)


ENDS = EndSeconds(reduce=((2.0, 2.0),), gather=((1.0, 1.0),), optimizer=(0.5,))
TWO_CHUNKS = PassSeconds(forward=((1.0, 1.0),), backward=((2.0, 2.0),))
ONE_STAGE = Schedule(vpp=2, micro_batches=1)


def test_without_overlap_both_ends_are_added() -> None:
    step = simulate(ONE_STAGE, TWO_CHUNKS, ENDS)
    assert step.seconds == 6 + 4 + 0.5 + 2
    (stage,) = step.stages
    assert (stage.busy_s, stage.reduce_s, stage.optimizer_s, stage.gather_s) == (6, 4, 0.5, 2)
    assert stage.bubble_s == 0


def test_reduction_overlaps_with_the_backward_passes_that_follow() -> None:
    def seconds(buckets: int) -> float:
        ends = EndSeconds(
            reduce=ENDS.reduce, gather=ENDS.gather, optimizer=(0.0,), overlap_reduce=True,
            buckets=buckets,
        )  # fmt: skip
        return simulate(ONE_STAGE, TWO_CHUNKS, ends).seconds - 2

    # Backward passes end at 4 and 6; the first reduction runs beside the second pass.
    assert seconds(1) == 8.0
    # Two buckets: the first leaves at 3, reductions run to 5 and 7, and the last one's second
    # half after 6.
    assert seconds(2) == 7.0


def test_parameters_are_gathered_beside_the_first_forward_passes() -> None:
    def seconds(buckets: int) -> float:
        ends = EndSeconds(
            reduce=((0.0, 0.0),), gather=ENDS.gather, optimizer=(0.0,), overlap_reduce=True,
            overlap_gather=True, buckets=buckets,
        )  # fmt: skip
        return simulate(ONE_STAGE, TWO_CHUNKS, ends).seconds

    assert seconds(1) == 1.0 + 6
    assert seconds(2) == 0.5 + 6


def test_short_and_long_communication_at_the_ends() -> None:
    one_chunk = PassSeconds(forward=((1.0,),), backward=((2.0,),))

    def seconds(reduce: float, gather: float) -> float:
        ends = EndSeconds(
            reduce=((reduce,),), gather=((gather,),), optimizer=(0.0,), overlap_reduce=True,
            overlap_gather=True, buckets=2,
        )  # fmt: skip
        return simulate(Schedule(micro_batches=1), one_chunk, ends).seconds

    # A bucket is left to reduce when the backward pass ends, however short a reduction is.
    assert seconds(reduce=0.5, gather=0.0) == 3.0 + 0.25
    # Half the forward pass comes after the last bucket, however early the first is there.
    assert seconds(reduce=0.0, gather=5.0) == (5.0 + 0.5) + 2.0


def test_all_stages_wait_for_the_slowest_before_the_update() -> None:
    schedule = Schedule(pp=2, micro_batches=4)
    seconds = PassSeconds(forward=even(1.0, pp=2), backward=even(2.0, pp=2))
    ends = EndSeconds(reduce=((0.0,), (9.0,)), gather=((0.0,), (0.0,)), optimizer=(1.0, 0.25))
    step = simulate(schedule, seconds, ends)
    assert step.seconds == (13.0 + 9.0) + 1.0
    first, last = step.stages
    assert first.bubble_s == 23 - 12 - 1
    assert last.bubble_s == 23 - 12 - 9 - 0.25


def test_the_trace_holds_every_pass_and_both_ends() -> None:
    schedule = Schedule(pp=2, vpp=2, micro_batches=4)
    seconds = PassSeconds(forward=even(1.0, pp=2, vpp=2), backward=even(2.0, pp=2, vpp=2))
    ends = EndSeconds(
        reduce=even(0.5, pp=2, vpp=2), gather=even(0.25, pp=2, vpp=2), optimizer=(0.1, 0.1)
    )
    step = simulate(schedule, seconds, ends)
    document = json.loads(json.dumps(trace(step)))
    complete = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert len(complete) == 2 * 2 * schedule.passes + 2 * 3
    assert max(event["ts"] + event["dur"] for event in complete) == pytest.approx(
        1e6 * step.seconds
    )
    names = [e["args"]["name"] for e in document["traceEvents"] if e["ph"] == "M"]
    assert names == ["stage 0", "stage 1"]


def test_a_stage_runs_ahead_by_its_warm_up() -> None:
    schedule = Schedule(pp=4, vpp=2, micro_batches=8, paired=True)
    step = run_even(schedule, 1.0, 2.0)
    for stage in range(4):
        first = next(p for p in step.passes() if p.stage == stage and p.kind == "backward")
        earlier = [
            p
            for p in step.passes()
            if p.stage == stage and p.kind == "forward" and p.end_s <= first.start_s
        ]
        assert len(earlier) == warm_up_passes(schedule, stage)
