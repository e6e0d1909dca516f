"""Pipeline schedules: which forward passes wait for their backward pass at a stage's peak."""

from parallel.layout.layout import Layout


def chunks_in_flight(layout: Layout, stage: int, micro_batches: int) -> list[int]:
    """Return the chunk of every forward pass whose activations a stage holds at its peak.

    With one forward, one backward, stage `s` runs `pp - s` forward passes ahead. Interleaved, it
    runs `2 (pp - s - 1) + (vpp - 1) pp + 1`, in turn `pp` micro-batches per chunk
    (arXiv:2104.04473, section 2.2; `get_pp_rank_microbatches` in megatron-core's `schedules.py`).
    """
    pp, vpp = layout.pp, layout.vpp
    if vpp == 1:
        return [0] * min(pp - stage, micro_batches)
    ahead = 2 * (pp - stage - 1) + (vpp - 1) * pp + 1
    return [(step // pp) % vpp for step in range(min(ahead, vpp * micro_batches))]
