"""The least bytes that the memory-bound operations of a training step move.

Compulsory traffic (M. D. Hill, A. J. Smith, IEEE Trans. Comput. 38, 1989): every operand is read
once and every result written once by each group of operations between two matrix products, however
many operations that group has. What the products themselves read and write is in their own time.
Residual sums are fused with norms, routing weights with the activation, clipping with the update.
Rows are copied into the order of experts and back, since grouped products read contiguous rows: a
kernel that gathers rows itself (ScatterMoE, arXiv:2403.08245) would be below this floor.

T tokens of a micro-batch, H hidden, b bytes of an activation. A call is one forward or backward
pass over one layer.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.bench.floor import parts
from benchmarks.bench.floor.products import StepSize
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger

_FP32 = 4
_INDEX = 8
"""Bytes of a token's or an expert's number, int64."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """An operation's compulsory traffic, as often as a step repeats it."""

    part: str
    operation: str
    call_bytes: int
    """Read and written by one call: also its working set."""
    calls: int

    @property
    def total_bytes(self) -> int:
        """Bytes of all calls."""
        return self.call_bytes * self.calls


def step_traffic(model: ModelConfig, size: StepSize, element_bytes: int) -> list[Traffic]:
    """Return all memory-bound operations of a step.

    Args:
        model: On one rank, no parallel layout divides it.
        size: Of the step.
        element_bytes: Of an activation and a parameter, 4 (FP32) or 2 (BF16).
    """
    found: Counter[tuple[str, str, int]] = Counter()
    for part, operation, call_bytes in _micro_batch(model, size.tokens, element_bytes):
        if call_bytes:
            found[part, operation, call_bytes] += size.micro_batches
    found[parts.OPTIMIZER, "AdamW", _adamw_bytes(model, element_bytes)] += 1
    return [
        Traffic(part=part, operation=operation, call_bytes=call_bytes, calls=calls)
        for (part, operation, call_bytes), calls in found.items()
    ]


def _micro_batch(
    model: ModelConfig, tokens: int, element_bytes: int
) -> Iterator[tuple[str, str, int]]:
    """Yield part, operation and bytes of every call on a micro-batch."""
    row = tokens * model.hidden_size * element_bytes
    for sparse in model.sparse_layers:
        yield from _layer(model, tokens, element_bytes, sparse=sparse)
    yield from _norms(row, model.num_layers)
    for _ in range(model.mtp_layers):
        layer = _layer(model, tokens, element_bytes, sparse=model.sparse_layers[-1])
        norms = [*_norms(row, 1), *_norms(row, 0), *_norms(row, 0)]
        yield from ((parts.HEAD, name, size) for _part, name, size in [*layer, *norms])
    # The softmax reads the logits and leaves their gradient in their place, row by row: one read
    # and one write of T V elements, and the backward products read what it leaves.
    logits = tokens * model.vocab_size * element_bytes
    for _ in range(1 + model.mtp_layers):
        yield parts.HEAD, "cross-entropy", 2 * logits
        yield parts.HEAD, "embedding forward", tokens * _INDEX + 2 * row
        # How many rows of the table the tokens share is not known: only the read is certain.
        yield parts.OTHER, "embedding backward", tokens * _INDEX + row
    yield parts.DATA, "batch", 2 * tokens * _INDEX  # inputs and labels, written once


def _norms(row: int, layers: int) -> Iterator[tuple[str, str, int]]:
    """Yield RMS norms: two of each layer, and the one behind the last; `row` is T H b.

    All but the first add a branch's output to the residual stream in the same pass: two reads, two
    writes. Backward reads the output's gradient, the input and the residual's gradient and writes
    the sum; behind the last norm there is no residual.
    """
    if layers:
        yield parts.NORMS, "first norm forward", 2 * row
        yield parts.NORMS, "first norm backward", 4 * row
    for _ in range(2 * layers - 1):
        yield parts.NORMS, "norm and residual forward", 4 * row
        yield parts.NORMS, "norm and residual backward", 4 * row
    yield parts.NORMS, "last norm forward", (4 if layers else 2) * row
    yield parts.NORMS, "last norm backward", 3 * row


def _layer(
    model: ModelConfig, tokens: int, element_bytes: int, *, sparse: bool
) -> Iterator[tuple[str, str, int]]:
    yield from _attention(model, tokens, element_bytes)
    moe = model.moe
    if not sparse or moe is None:
        inner = model.ffn_hidden_size or 0
        yield from _activation(parts.DENSE_FFN, tokens * inner * element_bytes)
        return
    yield from _router(model, tokens, element_bytes)
    routed = tokens * moe.top_k
    yield from _activation(parts.EXPERTS, routed * moe.expert_ffn_hidden_size * element_bytes)
    shared = tokens * moe.shared_expert_ffn_hidden_size * element_bytes
    yield from _activation(parts.SHARED_EXPERTS, shared)
    # Permutation reads T rows and writes T K of them; combining reads those, and what shared
    # experts gave, and writes T. Backward each moves what the other one does forward.
    row = model.hidden_size * element_bytes
    permuted = (tokens + routed) * row
    yield parts.DISPATCH, "permute forward", permuted
    yield parts.DISPATCH, "combine forward", permuted + (tokens * row if shared else 0)
    yield parts.DISPATCH, "combine backward", permuted
    yield parts.DISPATCH, "permute backward", permuted


def _attention(
    model: ModelConfig, tokens: int, element_bytes: int
) -> Iterator[tuple[str, str, int]]:
    """Yield norms and rotation of queries and keys, in one pass; attention's core is a kernel.

    Forward reads and writes once. Backward reads and writes the gradient, and reads the norm's
    input, where there is one. Latent attention rotates some dimensions and normalizes latents.
    """
    width, mla = tokens * element_bytes, model.mla
    if mla is None:
        whole = width * (model.num_heads + model.kv_heads) * model.query_head_dim
        normalized = 0 if model.qk_norm == "none" else whole
        # A norm touches all dimensions, a rotation without one those that it turns.
        rotated = normalized or round(whole * model.rope.fraction)
    else:
        rotated = width * (model.num_heads + 1) * mla.qk_rope_head_dim
        normalized = width * (mla.kv_lora_rank + (mla.q_lora_rank or 0))
        yield parts.ATTENTION, "latent norms forward", 2 * normalized
        yield parts.ATTENTION, "latent norms backward", 3 * normalized
        normalized = 0
    yield parts.ATTENTION, "norm and rotation forward", 2 * rotated
    yield parts.ATTENTION, "norm and rotation backward", 2 * rotated + normalized


def _activation(part: str, inner: int) -> Iterator[tuple[str, str, int]]:
    """Yield a gated activation (arXiv:2002.05202); `inner` is the bytes of its output.

    Forward reads gate and up and writes their product; backward reads both and the product's
    gradient and writes theirs.
    """
    yield part, "activation forward", 3 * inner
    yield part, "activation backward", 5 * inner


def _router(model: ModelConfig, tokens: int, element_bytes: int) -> Iterator[tuple[str, str, int]]:
    """Yield scores, choice and router losses in one pass over the logits.

    Forward reads them and writes the K weights and experts; backward reads logits and the weights'
    gradients and writes the logits'.
    """
    assert model.moe is not None
    score_bytes = {"fp64": 8, "fp32": _FP32, "model": element_bytes}[model.moe.router_dtype]
    logits = tokens * model.moe.num_experts * score_bytes
    chosen = tokens * model.moe.top_k
    yield parts.ROUTER, "choice forward", logits + chosen * (score_bytes + _INDEX)
    yield parts.ROUTER, "choice backward", 2 * logits + chosen * score_bytes


def _adamw_bytes(model: ModelConfig, element_bytes: int) -> int:
    """Return the bytes of clipping and AdamW, both states and gradients in FP32.

    The norm of all gradients is known before the first update, so that they are read twice. The
    update (arXiv:1711.05101) reads parameter, gradient and both moments and writes parameter and
    moments; beside FP32 masters, it writes the BF16 parameter too.
    """
    copy_bytes = 0 if element_bytes == _FP32 else element_bytes
    parameters = ledger(model, 1).total_parameters
    return parameters * (_FP32 * (1 + 4 + 3) + copy_bytes)
