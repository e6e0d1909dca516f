"""Products, attention and copies alone: what a floor is measured with.

Each is a group of interchangeable kernels by name; the fastest counts. Operands come from a pool
of random numbers made once, and results go where memory is already mapped, if the kernel can.

Shapes as in matmul.py: G groups, M rows of all of them, N outputs, K inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench.gemm_shapes import Gemm
from benchmarks.bench.kernel_timing import Kernel
from moe.config.kernels import GROUPED_ROW_BYTES


class Pool:
    """Random operands of any size and number format, in three buffers that never overlap.

    Drawing normal numbers takes longer than multiplying them, and memory that is new costs page
    faults: neither is part of a floor.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: dict[tuple[int, torch.dtype], Tensor] = {}

    def take(self, slot: int, dtype: torch.dtype, *size: int) -> Tensor:
        """Return buffer `slot` (0, 1 or 2) as a contiguous tensor of this size."""
        needed = prod(size)
        buffer = self._buffers.get((slot, dtype))
        if buffer is None or buffer.numel() < needed:
            generator = torch.Generator(self.device).manual_seed(slot)
            buffer = torch.randn(needed, generator=generator, device=self.device, dtype=dtype)
            self._buffers[slot, dtype] = buffer
        return buffer[:needed].view(size)


@dataclass(frozen=True)
class PassKernels:
    """The kernels of one pass of a product."""

    name: str
    kernels: Mapping[str, Kernel]


def product_passes(gemm: Gemm, dtype: torch.dtype, pool: Pool) -> list[PassKernels]:
    """Return forward pass, input's gradient and weight's gradient.

    They share buffers: let no two run at once. Groups are multiplied one by one (`mm`) and at once
    (`grouped_mm`) where rows are aligned as that takes them.
    """
    x_mk = pool.take(0, dtype, gemm.m, gemm.k)
    w_gnk = pool.take(1, dtype, gemm.groups, gemm.n, gemm.k)
    y_mn = pool.take(2, dtype, gemm.m, gemm.n)
    forward = _weighted(gemm, x_mk, w_gnk.transpose(-2, -1), y_mn)
    grad_y_mn = pool.take(0, dtype, gemm.m, gemm.n)
    grad_x_mk = pool.take(2, dtype, gemm.m, gemm.k)
    to_input = _weighted(gemm, grad_y_mn, w_gnk, grad_x_mk)
    right_mk = pool.take(1, dtype, gemm.m, gemm.k)
    grad_w_gnk = pool.take(2, dtype, gemm.groups, gemm.n, gemm.k)
    to_weight = _outer_products(gemm, grad_y_mn, right_mk, grad_w_gnk)
    passes = [{"mm": forward}, {"mm": to_input}, {"mm": to_weight}]
    if _can_group(gemm, dtype):
        ends = torch.tensor(list(accumulate(gemm.rows)), device=pool.device, dtype=torch.int32)
        passes[0]["grouped_mm"] = lambda: F.grouped_mm(x_mk, w_gnk.transpose(-2, -1), offs=ends)
        passes[1]["grouped_mm"] = lambda: F.grouped_mm(grad_y_mn, w_gnk, offs=ends)
        passes[2]["grouped_mm"] = lambda: F.grouped_mm(grad_y_mn.T, right_mk, offs=ends)
    names = ("forward", "input gradient", "weight gradient")
    return [PassKernels(name, kernels) for name, kernels in zip(names, passes, strict=True)]


def copy_kernel(moved_bytes: int, pool: Pool) -> Kernel:
    """Return STREAM's triad (a = b + s c), which moves this many bytes: two reads, one write.

    J. D. McCalpin, IEEE TCCA Newsletter, December 1995. Lines that a processor fetches before it
    overwrites them are not counted, as they are not in `traffic`.
    """
    count = max(1, moved_bytes // (3 * torch.float32.itemsize))
    out, left, right = (pool.take(slot, torch.float32, count) for slot in (2, 0, 1))
    return lambda: torch.add(left, right, alpha=0.5, out=out)


def _can_group(gemm: Gemm, dtype: torch.dtype) -> bool:
    multiple = GROUPED_ROW_BYTES // dtype.itemsize
    aligned = not (gemm.n % multiple or gemm.k % multiple)
    return gemm.groups > 1 and aligned and dtype in (torch.float32, torch.bfloat16)


def _row_slices(gemm: Gemm) -> list[slice]:
    return [slice(first, end) for first, end in pairwise([0, *accumulate(gemm.rows)])]


def _weighted(gemm: Gemm, left: Tensor, weights_g: Tensor, out: Tensor) -> Kernel:
    """Multiply each group's rows by its weight."""
    groups = zip(_row_slices(gemm), weights_g, strict=True)
    return _multiply([(left[rows], weight, out[rows]) for rows, weight in groups])


def _outer_products(gemm: Gemm, left_mn: Tensor, right_mk: Tensor, out_gnk: Tensor) -> Kernel:
    """Sum over each group's rows."""
    groups = zip(_row_slices(gemm), out_gnk, strict=True)
    return _multiply([(left_mn[rows].T, right_mk[rows], out) for rows, out in groups])


def _multiply(products: list[tuple[Tensor, Tensor, Tensor]]) -> Kernel:
    def run() -> None:
        for left, right, out in products:
            torch.mm(left, right, out=out)

    return run
