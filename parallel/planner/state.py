"""Parameters, gradients and optimizer states of one rank, to the byte: what stays for a whole run.

megatron-core keeps the gradients of each chunk in one buffer for dense and one for expert
parameters; with the distributed optimizer the parameters too, each buffer padded so that its shards
are equal (`distributed/param_and_grad_buffer.py`), and master copies and moments only of a rank's
shard (`optimizer/distrib_optimizer.py`; ZeRO stage 1, arXiv:1910.02054). The byte counts hold where
every parameter's size is a multiple of 64, as those of trained models are; else each parameter's
start is padded to 64 too, which the size of a component does not tell: less than
`ALIGNED_ELEMENTS` more elements a parameter. Buffers that overlap communication have several
buckets, each padded: less than `lcm(replicas, 128)` more elements a bucket.
"""

from dataclasses import dataclass
from math import lcm

from parallel.planner.rank_parameters import RankParameters, chunk_parameters
from parallel.planner.software import Software, StateBytes
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision

ALIGNED_ELEMENTS = 64
SHARD_ELEMENTS = 128
FP8_SCALES = {"delayed": 0.0, "current": 0.0, "blockwise": 4 / 128, "mxfp8": 1 / 32}
"""Bytes of scales per FP8 element of an activation: one scale for a tensor; an FP32 scale for 128
elements; an E8M0 scale for 32 (Transformer Engine's `Float8BlockScaling`, `MXFP8BlockScaling`)."""
FP8_WEIGHT_SCALES = FP8_SCALES | {"blockwise": 4 / 128**2}
"""The same of a weight: blockwise scaling gives one to a block of 128 x 128."""


@dataclass(frozen=True, kw_only=True)
class RankState:
    """Bytes on each rank of one stage; with the distributed optimizer, on its fullest."""

    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    """Master copies and moments."""
    fp8_weight_bytes: int
    """FP8 copies of the weights."""


def rank_state(work: Workload, stage: int, state: StateBytes, software: Software) -> RankState:
    """Return what one stage's ranks keep for the whole run."""
    chunks = [
        chunk_parameters(work.shape, work.layout, work.precision, kinds, (stage, chunk))
        for chunk, kinds in enumerate(work.layer_kinds[stage])
    ]
    elements = sum(sum(_padded(work, chunk)) for chunk in chunks)
    fp8 = sum(chunk.fp8 for chunk in chunks)
    width = work.precision.element_bytes
    in_fp8 = fp8 if work.precision.fp8_parameters else 0
    return RankState(
        parameter_bytes=width * (elements - in_fp8) + in_fp8,
        gradient_bytes=state.gradient * elements,
        optimizer_bytes=sum(_optimizer_bytes(work, chunk, state) for chunk in chunks),
        fp8_weight_bytes=round(_fp8_copy_bytes(work.precision, software) * fp8),
    )


def replicas(work: Workload) -> tuple[int, int]:
    """Return on how many ranks a dense and an expert parameter are replicated."""
    return work.placement.dp * work.layout.cp, work.placement.edp


def _padded(work: Workload, chunk: RankParameters) -> tuple[int, int]:
    """Return the elements of a chunk's dense and of its expert buffer."""
    if not work.layout.distributed_optimizer:
        return chunk.dense, chunk.expert
    dense, expert = (lcm(count, SHARD_ELEMENTS) for count in replicas(work))
    return -(-chunk.dense // dense) * dense, -(-chunk.expert // expert) * expert


def _optimizer_bytes(work: Workload, chunk: RankParameters, state: StateBytes) -> int:
    """Return the states of a rank's shard; the first rank's holds no padding if others hold any."""
    per_parameter = state.moments + (state.master if work.precision.dtype == "bf16" else 0)
    if not work.layout.distributed_optimizer:
        return per_parameter * chunk.total
    shards = zip(_padded(work, chunk), replicas(work), (chunk.dense, chunk.expert), strict=True)
    return per_parameter * sum(min(padded // count, held) for padded, count, held in shards)


def _fp8_copy_bytes(precision: Precision, software: Software) -> float:
    """Return the bytes of FP8 copies that Transformer Engine keeps per weight.

    A weight and its transpose, or the two directions of its scales; parameters that are in FP8
    themselves are the first of the two.
    """
    if not precision.is_native_fp8 or precision.scaling is None:
        return 0.0
    scales = FP8_WEIGHT_SCALES[precision.scaling]
    copies = 2 if software.fp8_transposes else 1
    return copies * (1 + scales) - (1 if precision.fp8_parameters else 0)
