"""What a GPU needs beside the tensors that a rank allocates: an estimate, *modelled*.

Communicators, dispatchers and CUDA take memory outside PyTorch's allocator, and the allocator
reserves more than it hands out. None of these four was measured here; each term says what it rests
on. They decide whether a layout fits; a prediction of *allocated* memory leaves them out.
"""

from dataclasses import dataclass

from parallel.planner.dispatch_buffers import dispatch_buffer_bytes
from parallel.planner.memory import RankMemory
from parallel.planner.workload import Workload

CUDA_CONTEXT_BYTES = 10**9
"""CUDA context, kernels and libraries of one process: about 1 GB on an H100, assumed for all."""
FRAGMENTATION_SHARE = 0.045
"""Reserved over allocated, less one: 75.34 over 72.066 GiB in the one published run that prints
both (nemotron-3.5-lightning on 16 H100, NVIDIA-NeMo/Megatron-Bridge@067f987d)."""
NCCL_CHANNELS = 16
"""Of one communicator: assumed; NCCL chooses them by topology."""
NCCL_CHANNEL_BYTES = 4 * 2**20 + 120 * 640 * 8 * 8 + 512 * 8 * 8 * 16
"""Receive buffers of a ring's channel for NCCL's three protocols: Simple (`NCCL_BUFFSIZE`), LL128
and LL (`NCCL_LL128_BUFFSIZE` and `NCCL_LL_BUFFSIZE` in NCCL's `device.h`)."""


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Bytes of one GPU's memory in use at the peak, by what uses them."""

    allocated: RankMemory
    fragmentation_bytes: int
    """Reserved by PyTorch's allocator and not handed out."""
    communicator_bytes: int
    dispatch_buffer_bytes: int
    context_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of them: what has to fit."""
        outside = self.communicator_bytes + self.dispatch_buffer_bytes + self.context_bytes
        return self.allocated.total_bytes + self.fragmentation_bytes + outside

    @property
    def reserved_bytes(self) -> int:
        """What PyTorch reports as reserved."""
        return self.allocated.total_bytes + self.fragmentation_bytes

    def as_json(self) -> dict[str, int]:
        """Return the terms, those of `RankMemory` first; they add up to `total_bytes`."""
        terms: dict[str, int] = {**vars(self.allocated), **vars(self)}
        return {name: size for name, size in terms.items() if name not in ("stage", "allocated")}


def device_memory(work: Workload, allocated: RankMemory) -> DeviceMemory:
    """Return what a GPU needs whose rank allocates `allocated`."""
    return DeviceMemory(
        allocated=allocated,
        fragmentation_bytes=round(FRAGMENTATION_SHARE * allocated.total_bytes),
        communicator_bytes=_communicators(work) * NCCL_CHANNELS * NCCL_CHANNEL_BYTES,
        dispatch_buffer_bytes=dispatch_buffer_bytes(work),
        context_bytes=CUDA_CONTEXT_BYTES,
    )


def _communicators(work: Workload) -> int:
    """Count the communicators that a rank uses in a step.

    One for each dimension with several ranks (gradients are reduced over `dp * cp`), one over an
    expert's ranks where `etp * ep` is used as one, one over all ranks of a replica, for the norm of
    the gradients.
    """
    placement = work.placement
    layout = placement.layout
    sizes = [
        layout.tp, layout.cp, layout.pp, placement.dp * layout.cp, layout.ep, layout.expert_tp,
        placement.num_ranks,
    ]  # fmt: skip
    if any(work.shape.sparse_layers):
        sizes.append(placement.edp)
    if layout.expert_tp > 1 and layout.ep > 1:
        sizes.append(layout.expert_tp * layout.ep)
    return sum(size > 1 for size in sizes)
