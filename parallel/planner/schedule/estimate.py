"""The length of a step without simulating all of it: closed forms, a bound, an extrapolation.

For a search. The closed forms and the bound follow from the order of passes; that they agree with
the simulation is tested.
"""

from dataclasses import replace

from parallel.planner.schedule.order import Schedule, warm_up_passes
from parallel.planner.schedule.seconds import EndSeconds, PassSeconds
from parallel.planner.schedule.simulation import simulate

STEADY_GROUPS = 3
"""Groups of `pp` micro-batches after which a schedule repeats itself, unless its slowest stage is
hardly slower than another; then `lower_bound_seconds` decides."""


def even_seconds(
    schedule: Schedule,
    forward: float,
    backward: float,
    *,
    transfer: float = 0.0,
    saving: float = 0.0,
) -> float:
    """Return the length of all passes where every chunk takes the same.

    `(m v + p - 1) (f + b)` for `m` micro-batches, `v` chunks a stage and `p` stages
    (arXiv:2104.04473, section 2.2: a bubble of `(p - 1) / (v m)`); interleaved, `2 (p v - 1)`
    transfers, at the beginning and the end, are not hidden; paired, the last stage saves at each
    of its pairs.

    Args:
        schedule: Interleaved, or without transfers: in 1F1B each round waits for transfers, and
            `estimated_seconds` has to be asked.
        forward: Seconds of a chunk's forward pass.
        backward: Seconds of its backward pass.
        transfer: Seconds between stages, less than a pass; the sender does not wait.
        saving: Seconds that a pair saves, at most those of either pass.

    Raises:
        ValueError: 1F1B over several stages with transfers.
    """
    pp, vpp = schedule.pp, schedule.vpp
    if transfer and vpp == 1 and pp > 1:
        raise ValueError(f"no closed form of 1F1B over {pp} stages with transfers")
    pairs = schedule.passes - warm_up_passes(schedule, pp - 1)
    exposed = 2 * (pp * vpp - 1) * transfer if pp > 1 else 0.0
    return (
        (schedule.passes + pp - 1) * (forward + backward)
        + exposed
        - (pairs * saving if schedule.paired else 0.0)
    )


def lower_bound_seconds(schedule: Schedule, seconds: PassSeconds) -> float:
    """Return what no order of passes can undercut.

    Each stage waits for its first input, runs all its passes, and its last result goes back to the
    first stage.
    """
    bound = before = 0.0
    for stage, (forward, backward) in enumerate(
        zip(seconds.forward, seconds.backward, strict=True)
    ):
        work = schedule.micro_batches * (sum(forward) + sum(backward))
        if schedule.paired and seconds.paired_saving is not None:
            work -= schedule.micro_batches * sum(seconds.paired_saving[stage])
        bound = max(bound, before + work)
        before += forward[0] + backward[0] + 2 * seconds.transfer
    return bound


def estimated_seconds(
    schedule: Schedule, seconds: PassSeconds, ends: EndSeconds | None = None
) -> float:
    """Return the length of a step, extrapolated from its first groups of micro-batches.

    In the steady state each further group of `pp` micro-batches takes the same time. Where a stage
    becomes the slowest only later, its own work bounds the step from below.
    """
    groups, rest = divmod(schedule.micro_batches, schedule.pp)
    if groups <= STEADY_GROUPS + 1:
        return simulate(schedule, seconds, ends).seconds
    short = replace(schedule, micro_batches=STEADY_GROUPS * schedule.pp + rest)
    longer = replace(short, micro_batches=short.micro_batches + schedule.pp)
    first, second = (simulate(each, seconds, ends) for each in (short, longer))
    further = (groups - STEADY_GROUPS - 1) * (second.seconds - first.seconds)
    after_passes = second.seconds - max(second.computed)
    return max(second.seconds + further, lower_bound_seconds(schedule, seconds) + after_passes)
