"""What a simulated step gives: its length, each stage's busy and idle seconds, every pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from parallel.planner.schedule.order import PassKind, Schedule

ALONE = -1
"""The partner of a pass that runs alone."""


@dataclass(frozen=True, kw_only=True)
class TimedPass:
    """One pass on the timeline; passes that run side by side have the same start and end."""

    stage: int
    kind: PassKind
    micro_batch: int
    chunk: int
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """Seconds of one stage in one step; they add up to the step."""

    busy_s: float
    """Forward and backward passes."""
    reduce_s: float
    """Gradient reduction that no pass hides."""
    optimizer_s: float
    gather_s: float
    """Gathering of parameters after the update; 0 where the next forward passes overlap it."""
    bubble_s: float
    """The rest: waiting for other stages, for transfers, or for parameters."""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What one stage runs in turn, by number of pass (`Schedule`)."""

    passes: list[int]
    partners: list[int]
    """The backward pass that runs beside, or `ALONE`."""
    starts: list[float]
    """Seconds from the beginning of the step."""
    lengths: list[float]
    """Seconds."""

    def last_backward(self, schedule: Schedule) -> list[tuple[float, float]]:
        """Return start and end of each chunk's last backward pass, by chunk."""
        last = schedule.micro_batches - 1
        wanted = {schedule.number("backward", chunk, last): chunk for chunk in range(schedule.vpp)}
        found = [(0.0, 0.0)] * schedule.vpp
        turns = zip(self.passes, self.partners, self.starts, self.lengths, strict=True)
        for number, partner, start, length in turns:
            chunk = wanted.get(number if partner == ALONE else partner)
            if chunk is not None:
                found[chunk] = (start, start + length)
        return found


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """One simulated step: *modelled*. Lists are indexed by stage."""

    schedule: Schedule
    turns: list[Turns]
    computed: list[float]
    """When each stage has finished its passes."""
    reduced: list[float]
    """When each stage's gradients are reduced; all wait for the last, for the gradients' norm."""
    optimizer: list[float]
    """Seconds of each stage's update."""
    gather: list[float]
    """Seconds of each stage's parameter gathering after it."""

    @cached_property
    def seconds(self) -> float:
        """The length of the step: from its first forward pass to that of the next."""
        after = (a + b for a, b in zip(self.optimizer, self.gather, strict=True))
        return max(self.reduced) + max(after)

    @cached_property
    def stages(self) -> tuple[StageTime, ...]:
        """Each stage's seconds."""
        result = []
        for stage, turns in enumerate(self.turns):
            busy = sum(turns.lengths)
            reduce = self.reduced[stage] - self.computed[stage]
            optimizer, gather = self.optimizer[stage], self.gather[stage]
            result.append(
                StageTime(
                    busy_s=busy,
                    reduce_s=reduce,
                    optimizer_s=optimizer,
                    gather_s=gather,
                    bubble_s=self.seconds - busy - reduce - optimizer - gather,
                )
            )
        return tuple(result)

    @property
    def bubble_share(self) -> float:
        """Idle over all seconds of all stages."""
        return sum(stage.bubble_s for stage in self.stages) / (len(self.stages) * self.seconds)

    def passes(self) -> Iterator[TimedPass]:
        """Yield every pass, by stage and start."""
        for stage, each in enumerate(self.turns):
            turns = zip(each.passes, each.partners, each.starts, each.lengths, strict=True)
            for number, partner, start, length in turns:
                for one in (number,) if partner == ALONE else (number, partner):
                    kind, micro_batch, chunk = self.schedule.numbered(one)
                    yield TimedPass(
                        stage=stage,
                        kind=kind,
                        micro_batch=micro_batch,
                        chunk=chunk,
                        start_s=start,
                        end_s=start + length,
                    )
