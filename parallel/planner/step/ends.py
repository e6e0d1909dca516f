"""Seconds of what stands before the first layer and behind the last: embedding, head, loss."""

from parallel.planner.step.attention_block import NORM_BYTES
from parallel.planner.step.clock import Clock, MatrixPrecision
from parallel.planner.step.linear import add_column_parallel
from parallel.planner.step.seconds import TermSeconds
from parallel.planner.workload import Workload

LOSS_BYTES = 10, 6
"""Bytes a logit of fused cross-entropy: forward reads 16 bits, writes and reads FP32 for the
maximum and the sum over ranks; backward reads FP32 and writes 16 bits."""
EMBEDDING_BYTES = 4, 6
"""Bytes an element: a row is read and written; its gradient is read and added in FP32."""


def embedding(clock: Clock, work: Workload) -> TermSeconds:
    """Return the seconds of looking tokens up, each rank in its share of the vocabulary."""
    seconds = TermSeconds()
    elements = work.tokens * work.shape.hidden_size
    seconds.add("memory_bound", *clock.traffic(elements, EMBEDDING_BYTES))
    if work.layout.tp > 1:
        scattered = clock.scatter(2 * elements, work.layout.tp)
        seconds.add("tensor_parallel", scattered, scattered)
    return seconds


def head(clock: Clock, work: Workload) -> TermSeconds:
    """Return the seconds of final norm, LM head (never FP8) and loss, for each predicted token."""
    shape, seconds = work.shape, TermSeconds()
    hidden = work.residual_tokens * shape.hidden_size
    seconds.add("memory_bound", *clock.traffic(hidden, NORM_BYTES))
    logits = shape.vocab_size // work.layout.tp
    precision: MatrixPrecision = "fp32" if clock.matrix == "fp32" else "bf16"
    add_column_parallel(seconds, clock, work, logits, shape.hidden_size, precision)
    seconds.add("memory_bound", *clock.traffic(work.tokens * logits, LOSS_BYTES))
    return seconds
