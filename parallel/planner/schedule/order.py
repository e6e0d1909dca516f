"""The order in which megatron-core's schedules run a stage's forward and backward passes.

One forward, one backward (1F1B; arXiv:2104.04473, section 2.2.1), its interleaved form with several
chunks a stage (section 2.2.2), and the form that runs a forward beside a backward pass to hide the
experts' communication. `get_pp_rank_microbatches` and `get_schedule_table` in
`megatron/core/pipeline_parallel/schedules.py`, `combined_1f1b.py` (0.16 and 0.19 agree).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from parallel.layout.layout import Layout

PassKind = Literal["forward", "backward"]


class Pass(NamedTuple):
    """One pass of one micro-batch through one chunk of a stage."""

    kind: PassKind
    micro_batch: int
    chunk: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which schedule runs, over how many stages, chunks and micro-batches.

    A stage's passes are numbered: forward passes by chunk, within a chunk by micro-batch; then
    backward passes likewise.
    """

    pp: int = 1
    """Pipeline stages."""
    vpp: int = 1
    """Chunks of each stage."""
    micro_batches: int
    """Of one step on one data-parallel rank; a multiple of `pp` where `vpp` > 1."""
    paired: bool = False
    """Whether a forward runs beside a backward pass (`overlap_experts`)."""

    @property
    def passes(self) -> int:
        """Forward passes of one stage in one step, over all its chunks."""
        return self.micro_batches * self.vpp

    def number(self, kind: PassKind, chunk: int, micro_batch: int = 0) -> int:
        """Return the number of a pass."""
        chunks_before = chunk + (self.vpp if kind == "backward" else 0)
        return chunks_before * self.micro_batches + micro_batch

    def numbered(self, number: int) -> Pass:
        """Return the pass that has a number."""
        chunk, micro_batch = divmod(number, self.micro_batches)
        if chunk < self.vpp:
            return Pass("forward", micro_batch, chunk)
        return Pass("backward", micro_batch, chunk - self.vpp)


def schedule_of(layout: Layout, micro_batches: int) -> Schedule:
    """Return the schedule that a layout runs `micro_batches` with."""
    return Schedule(
        pp=layout.pp,
        vpp=layout.vpp,
        micro_batches=micro_batches,
        paired=layout.overlap_experts,
    )


def warm_up_passes(schedule: Schedule, stage: int) -> int:
    """Return how many forward passes a stage runs before its first backward pass, less one.

    The last of them runs together with that backward pass where the schedule pairs them.
    """
    behind = schedule.pp - stage - 1
    if schedule.vpp == 1:
        ahead = behind + schedule.paired
    else:
        ahead = 2 * behind + (schedule.vpp - 1) * schedule.pp + schedule.paired
    return min(ahead, schedule.passes)


def forward_table(schedule: Schedule) -> list[tuple[int, int]]:
    """Return micro-batch and chunk of each forward pass of a stage, in turn.

    `pp` micro-batches pass the first chunk, then the next; then come the next `pp`. Backward
    passes follow the same table with chunks counted from the last.
    """
    pp, count = schedule.pp, schedule.micro_batches
    return [
        (micro_batch, chunk)
        for first in range(0, count, pp)
        for chunk in range(schedule.vpp)
        for micro_batch in range(first, min(first + pp, count))
    ]


def both_tables(schedule: Schedule) -> tuple[list[int], list[int]]:
    """Return the numbers of all forward and of all backward passes, in turn."""
    table, last = forward_table(schedule), schedule.vpp - 1
    return (
        [schedule.number("forward", chunk, batch) for batch, chunk in table],
        [schedule.number("backward", last - chunk, batch) for batch, chunk in table],
    )


def stage_order(schedule: Schedule, stage: int) -> list[Pass]:
    """Return what a stage runs in turn; paired passes follow each other, forward first."""
    forward, backward = (
        [schedule.numbered(number) for number in numbers] for numbers in both_tables(schedule)
    )
    ahead = warm_up_passes(schedule, stage)
    pairs = zip(forward[ahead:], backward, strict=False)
    middle = [one for pair in pairs for one in pair]
    return forward[:ahead] + middle + backward[schedule.passes - ahead :]


def chunks_in_flight(schedule: Schedule, stage: int) -> list[int]:
    """Return for each chunk how many of its forward passes a stage holds at its peak.

    Those of the warm-up and of the pass that follows it; paired, that pass saves only as fast as
    the backward pass beside it frees.
    """
    pp, vpp = schedule.pp, schedule.vpp
    held = min(warm_up_passes(schedule, stage) + (not schedule.paired), schedule.passes)
    if vpp == 1:
        return [held]
    rounds, rest = divmod(held, pp * vpp)
    return [rounds * pp + min(pp, max(0, rest - chunk * pp)) for chunk in range(vpp)]
