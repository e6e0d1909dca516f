"""What is alive only around the peak: logits, their gradients, gradients of weights and layers."""

from dataclasses import dataclass

from parallel.planner.activations import layer_gradient_bytes, recomputed_bytes
from parallel.planner.software import CHUNK_LOGITS, Software
from parallel.planner.weight_shapes import elements, head_matrix, layer_matrices, stage_matrices
from parallel.planner.workload import Workload

FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Transients:
    """Bytes at a stage's peak: when its first backward pass begins, or inside its widest layer."""

    logits_bytes: int
    weight_gradient_bytes: int
    layer_bytes: int
    """What the widest layer's backward pass holds more than the LM head's did."""


def transients(work: Workload, stage: int, software: Software) -> Transients:
    """Return what a stage holds for a moment at its peak."""
    is_last = stage == work.layout.pp - 1
    logits = logits_bytes(work, software) if is_last else 0
    head = _head_gradient_bytes(work, software) if is_last else 0
    layer = widest_layer_bytes(work, software)
    if software.fused_weight_gradients:
        width = work.precision.element_bytes
        kept = width * sum(elements(matrix) for matrix in stage_matrices(work, stage)) + head
        return Transients(
            logits_bytes=logits,
            weight_gradient_bytes=kept,
            layer_bytes=max(0, layer - logits),
        )
    return Transients(
        logits_bytes=logits,
        weight_gradient_bytes=head,
        layer_bytes=max(0, layer - logits - head),
    )


def widest_layer_bytes(work: Workload, software: Software) -> int:
    """Return what the backward pass of the layer that needs most holds while it runs."""
    kinds, in_fp8 = set(work.shape.sparse_layers), work.precision.is_native_fp8
    layer = layer_gradient_bytes(work) + max(
        recomputed_bytes(work, sparse=sparse, in_fp8=in_fp8) for sparse in kinds
    )
    if software.fused_weight_gradients:
        return layer
    widest = max(elements(m) for sparse in kinds for m in layer_matrices(work, sparse=sparse))
    return layer + work.precision.element_bytes * widest


def logits_bytes(work: Workload, software: Software) -> int:
    """Return the bytes of logits and of what is made of them.

    Chunked: logits in the model's precision, their FP32 softmax and their gradient; in FP32 the
    softmax overwrites the logits and becomes their gradient. Of several predictions' logits only
    those are kept that are saved in one chunk.
    """
    width = work.precision.element_bytes
    losses = 1 + work.shape.mtp_layers
    per_token = work.shape.vocab_size // work.layout.tp
    full = FP32_BYTES + (2 * width if width < FP32_BYTES else 0)
    if software.logits == "full":
        return losses * work.tokens * per_token * full
    if software.logits == "fused":
        return losses * work.tokens * per_token * 2 * width
    chunk = max(1, CHUNK_LOGITS // per_token)
    if work.tokens <= chunk:
        return losses * work.tokens * per_token * full
    return chunk * per_token * full


def _head_gradient_bytes(work: Workload, software: Software) -> int:
    """Return what the gradient of the LM head takes: in chunks, an FP32 sum and one summand."""
    width = work.precision.element_bytes
    sum_width = FP32_BYTES if software.logits == "chunked" else 0
    return (width + sum_width) * elements(head_matrix(work))
