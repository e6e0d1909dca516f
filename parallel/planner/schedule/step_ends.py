"""The two ends of a step: gathering of parameters before its passes, reduction of gradients after.

megatron-core gathers and reduces in buckets of parameters (`distributed/param_and_grad_buffer.py`):
a pass can begin once the first bucket is gathered, and a gradient bucket leaves once the backward
pass has filled it. A stage's buckets take turns on one communication stream.
"""

from parallel.planner.schedule.seconds import ByChunk, EndSeconds


def first_starts(ends: EndSeconds, forward: ByChunk) -> list[list[float]]:
    """Return when each chunk's first forward pass can start at the earliest, by stage and chunk.

    Not before the chunk's first bucket is gathered; and its last bucket's share of the pass comes
    after the whole chunk is.
    """
    result = []
    for stage, chunks in enumerate(ends.gather):
        begin, starts = 0.0, []
        for chunk, gather in enumerate(chunks):
            end = begin + gather
            before_last = forward[stage][chunk] * (1 - 1 / ends.buckets)
            starts.append(max(begin + gather / ends.buckets, end - before_last))
            begin = end
        result.append(starts)
    return result


def reduced_at(ends: EndSeconds, stage: int, last_backward: list[tuple[float, float]]) -> float:
    """Return when a stage's gradients are reduced.

    Args:
        ends: Seconds of the reductions.
        stage: Which stage.
        last_backward: Start and end of each chunk's last backward pass, by chunk.
    """
    passed = max(end for _, end in last_backward)
    if not ends.overlap_reduce:
        return passed + sum(ends.reduce[stage])
    free = 0.0
    for chunk in sorted(range(len(last_backward)), key=lambda chunk: last_backward[chunk]):
        start, end = last_backward[chunk]
        reduce = ends.reduce[stage][chunk]
        first_bucket = start + (end - start) / ends.buckets
        free = max(max(free, first_bucket) + reduce, end + reduce / ends.buckets)
    return max(free, passed)
