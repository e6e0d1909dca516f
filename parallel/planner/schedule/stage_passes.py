"""What one stage's passes take and where their results go, in flat lists by number of pass."""

from dataclasses import dataclass, field

from parallel.planner.schedule.order import PassKind, Schedule
from parallel.planner.schedule.seconds import PassSeconds, even

NOWHERE = -1
"""The stage that needs the result of a micro-batch's last backward pass."""


@dataclass
class StagePasses:
    """One stage's passes, by number."""

    seconds: list[float] = field(default_factory=list)
    saving: list[float] = field(default_factory=list)
    """Seconds less where a backward pass runs beside."""
    to_stage: list[int] = field(default_factory=list)
    """Which stage needs the result."""
    to_number: list[int] = field(default_factory=list)
    """Which pass there."""
    transfer: list[float] = field(default_factory=list)
    """Seconds until it arrives there."""


def stage_passes(schedule: Schedule, seconds: PassSeconds, stage: int) -> StagePasses:
    """Describe all passes of a stage; every micro-batch takes the same."""
    count, chunks = schedule.micro_batches, range(schedule.vpp)
    saving = (seconds.paired_saving or even(0.0, pp=schedule.pp, vpp=schedule.vpp))[stage]
    result = StagePasses()
    for chunk in chunks:
        result.seconds += [seconds.forward[stage][chunk]] * count
        result.saving += [saving[chunk]] * count
    for chunk in chunks:
        result.seconds += [seconds.backward[stage][chunk]] * count
    result.saving += [0.0] * schedule.passes
    targets = [_after_forward(schedule, stage, chunk) for chunk in chunks]
    targets += [_after_backward(schedule, stage, chunk) for chunk in chunks]
    for to, kind, chunk in targets:
        first = schedule.number(kind, chunk)
        result.to_stage += [to] * count
        result.to_number += range(first, first + count)
        result.transfer += [seconds.transfer if to not in (stage, NOWHERE) else 0.0] * count
    return result


def _after_forward(schedule: Schedule, stage: int, chunk: int) -> tuple[int, PassKind, int]:
    """Return stage, kind and chunk of the pass that follows; the last one's is its own backward."""
    if stage < schedule.pp - 1:
        return stage + 1, "forward", chunk
    if chunk < schedule.vpp - 1:
        return 0, "forward", chunk + 1
    return stage, "backward", chunk


def _after_backward(schedule: Schedule, stage: int, chunk: int) -> tuple[int, PassKind, int]:
    if stage > 0:
        return stage - 1, "backward", chunk
    if chunk > 0:
        return schedule.pp - 1, "backward", chunk - 1
    return NOWHERE, "backward", 0
