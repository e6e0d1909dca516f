"""A step of the pipeline, simulated event by event.

Each stage runs its passes in megatron-core's order (`order.py`), each as soon as the stage is free
and its input has arrived. Nothing else is assumed: the length of the step, every stage's idle time
and the timeline follow. Each pass is looked at once, so the work is linear in
`pp * vpp * micro_batches`; passes are numbers and lists are flat because a search runs this often.
"""

from parallel.planner.schedule.order import Schedule, both_tables, warm_up_passes
from parallel.planner.schedule.seconds import EndSeconds, PassSeconds
from parallel.planner.schedule.stage_passes import NOWHERE, StagePasses, stage_passes
from parallel.planner.schedule.step_ends import first_starts, reduced_at
from parallel.planner.schedule.timeline import ALONE, StepTime, Turns

NOT_YET = -1.0
"""Arrival of an input that no stage has produced."""


def simulate(schedule: Schedule, seconds: PassSeconds, ends: EndSeconds | None = None) -> StepTime:
    """Run one step.

    Args:
        schedule: Stages, chunks, micro-batches.
        seconds: Of passes and transfers.
        ends: Of gradient reduction, optimizer and parameter gathering; default: none.
    """
    stages = range(schedule.pp)
    passes = [stage_passes(schedule, seconds, stage) for stage in stages]
    turns = _turns(schedule)
    gathered: list[dict[int, float]] = [{} for _ in stages]
    if ends is not None and ends.overlap_gather:
        for stage, starts in enumerate(first_starts(ends, seconds.forward)):
            numbers = (schedule.number("forward", chunk) for chunk in range(schedule.vpp))
            gathered[stage] = dict(zip(numbers, starts, strict=True))
    _run(schedule, seconds.transfer_blocks, passes, turns, gathered)
    computed = [turn.starts[-1] + turn.lengths[-1] for turn in turns]
    if ends is None:
        nothing = [0.0] * schedule.pp
        reduced, optimizer, gather = computed, nothing, nothing
    else:
        last = [turn.last_backward(schedule) for turn in turns]
        reduced = [reduced_at(ends, stage, last[stage]) for stage in stages]
        optimizer = list(ends.optimizer)
        gather = [0.0 if ends.overlap_gather else sum(stage) for stage in ends.gather]
    return StepTime(
        schedule=schedule,
        turns=turns,
        computed=computed,
        reduced=reduced,
        optimizer=optimizer,
        gather=gather,
    )


def _turns(schedule: Schedule) -> list[Turns]:
    """Return what each stage runs in turn: one pass, or a forward beside a backward pass."""
    forward, backward = both_tables(schedule)
    result = []
    for stage in range(schedule.pp):
        ahead = warm_up_passes(schedule, stage)
        rest = schedule.passes - ahead
        if schedule.paired:
            passes = forward + backward[rest:]
            partners = [ALONE] * ahead + backward[:rest] + [ALONE] * ahead
        else:
            middle = [0] * (2 * rest)
            middle[::2], middle[1::2] = forward[ahead:], backward[:rest]
            passes = forward[:ahead] + middle + backward[rest:]
            partners = [ALONE] * len(passes)
        result.append(Turns(passes=passes, partners=partners, starts=[], lengths=[]))
    return result


def _run(
    schedule: Schedule,
    transfer_blocks: bool,
    stages: list[StagePasses],
    turns: list[Turns],
    gathered: list[dict[int, float]],
) -> None:
    """Fill in when each turn of each stage starts, and how long it takes.

    A stage runs on until an input is missing; whoever produces an input for it wakes it.
    """
    arrivals = [[NOT_YET] * (2 * schedule.passes) for _ in stages]
    arrivals[0][: schedule.micro_batches] = [0.0] * schedule.micro_batches
    free = [0.0] * schedule.pp
    awake, is_awake = list(range(schedule.pp)), [True] * schedule.pp
    while awake:
        stage = awake.pop()
        is_awake[stage] = False
        mine, turn, arrived, now = stages[stage], turns[stage], arrivals[stage], free[stage]
        begins, passes, partners = gathered[stage], turn.passes, turn.partners
        turn_number = len(turn.starts)
        while turn_number < len(passes):
            number, partner = passes[turn_number], partners[turn_number]
            start, length = arrived[number], mine.seconds[number]
            if start < 0 or (partner != ALONE and arrived[partner] < 0):
                break
            start = max(start, now)
            if begins:
                start = max(start, begins.get(number, 0.0))
            if partner != ALONE:
                start = max(start, arrived[partner])
                length += mine.seconds[partner] - mine.saving[number]
            turn.starts.append(start)
            turn.lengths.append(length)
            end = now = start + length
            for each in (number,) if partner == ALONE else (number, partner):
                to, transfer = mine.to_stage[each], mine.transfer[each]
                if to == NOWHERE:
                    continue
                arrivals[to][mine.to_number[each]] = end + transfer
                if transfer_blocks:
                    now += transfer
                if not is_awake[to] and to != stage:
                    is_awake[to] = True
                    awake.append(to)
            turn_number += 1
        free[stage] = now
