"""What communication costs beside compute on the same card.

Two things slow compute while communication runs: the SMs that it holds, and the memory bandwidth
that it takes. The rest is when it may run: each function below has one pattern's windows. Nothing
here is fitted to training steps.
"""

from dataclasses import dataclass

from parallel.errors import ParallelError


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What communication takes from the compute beside it."""

    sms_taken: int
    sms: int
    """SMs of the card."""
    bytes_per_s: float = 0.0
    """Memory traffic of the communication, bytes/s: what it reads and writes."""
    memory_bytes_per_s: float = 1.0
    """Memory bandwidth of the card, bytes/s."""
    memory_share: float = 0.0
    """Share of the compute's seconds that memory bandwidth limits, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.sms_taken < self.sms:
            raise ParallelError(
                f"sms_taken {self.sms_taken}: at least 0 and fewer than the card's {self.sms}"
            )
        if not 0 <= self.bytes_per_s < self.memory_bytes_per_s:
            raise ParallelError(
                f"bytes_per_s {self.bytes_per_s:g}: below the memory's {self.memory_bytes_per_s:g}"
            )
        if not 0 <= self.memory_share <= 1:
            raise ParallelError(f"memory_share {self.memory_share}: a share of 0 to 1")

    @property
    def compute_rate(self) -> float:
        """Speed of compute while communication runs, over its speed alone.

        SM-bound parts have fewer SMs, memory-bound parts less bandwidth (times add up).
        """
        by_sms = self.sms / (self.sms - self.sms_taken)
        by_memory = 1.0 / (1.0 - self.bytes_per_s / self.memory_bytes_per_s)
        return 1.0 / ((1 - self.memory_share) * by_sms + self.memory_share * by_memory)


def side_by_side_seconds(compute: float, communication: float, sharing: Sharing) -> float:
    """Return the seconds until both are done, started together."""
    done_meanwhile = communication * sharing.compute_rate
    if done_meanwhile >= compute:
        return max(communication, compute / sharing.compute_rate)
    return communication + compute - done_meanwhile


def chunked_seconds(
    chunk_compute: float, chunk_transfer: float, chunks: int, sharing: Sharing
) -> float:
    """Return the seconds of a matrix product whose operand or result moves in chunks.

    As Transformer Engine's user buffers overlap tensor parallelism: each rank has (all-gather) or
    keeps (reduce-scatter) one chunk, so that one product runs alone and `chunks` - 1 run beside a
    transfer. With smaller products than the whole one the caller's `chunk_compute` is more than
    its part.

    Args:
        chunk_compute: Seconds of one chunk's product.
        chunk_transfer: Seconds of one chunk's transfer to the next rank.
        chunks: Chunks; the ranks of the group.
        sharing: What a transfer takes; no SMs with copy engines.
    """
    if chunks < 1:
        raise ParallelError(f"chunks {chunks}: at least 1")
    beside = side_by_side_seconds(chunk_compute, chunk_transfer, sharing)
    return chunk_compute + (chunks - 1) * beside


def bucketed_seconds(compute: float, communication: float, buckets: int, sharing: Sharing) -> float:
    """Return the seconds of a pass with its gradients reduced, or weights gathered, in buckets.

    A bucket's gradients are reduced beside the backward pass of the next one; those of the last
    wait for its end (weights: those of the first are gathered before the pass begins).
    """
    if buckets < 1:
        raise ParallelError(f"buckets {buckets}: at least 1")
    alone = 1 / buckets
    beside = side_by_side_seconds(compute * (1 - alone), communication * (1 - alone), sharing)
    return compute * alone + beside + communication * alone


@dataclass(frozen=True, kw_only=True)
class LayerSeconds:
    """One sparse layer of one micro-batch, both passes."""

    attention_forward: float
    attention_backward: float
    experts_forward: float
    """Router, permutation and experts, without exchange."""
    experts_backward: float
    dispatch_forward: float
    combine_forward: float
    dispatch_backward: float
    """Backward of the dispatch: gradients return to their tokens."""
    combine_backward: float


def combined_pass_seconds(layer: LayerSeconds, sharing: Sharing) -> float:
    """Return the seconds of one layer's forward and another micro-batch's backward pass, combined.

    The windows are megatron-core's (`TransformerLayerSchedulePlan.run`): attention forward beside
    the combine's backward; experts backward, then experts forward beside the dispatch forward, then
    the dispatch's backward; attention backward beside the combine forward. In the middle window
    experts backward needs no dispatch, experts forward waits for it.
    """
    first = side_by_side_seconds(layer.attention_forward, layer.combine_backward, sharing)
    there = side_by_side_seconds(layer.experts_backward, layer.dispatch_forward, sharing)
    back = side_by_side_seconds(layer.experts_forward, layer.dispatch_backward, sharing)
    last = side_by_side_seconds(layer.attention_backward, layer.combine_forward, sharing)
    return first + there + back + last
