"""Matrix products as this device computes them, in exactly the number format asked for.

Operands are normal random numbers, made once: a board draws less power for constant ones. Shapes:
G groups, M rows of all of them, N outputs, K inputs.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench.gemm_shapes import Gemm
from benchmarks.bench.kernel_timing import Kernel
from benchmarks.errors import BenchmarkError
from moe.config.kernels import GROUPED_ROW_BYTES
from parallel.hardware.probe import compute_capability
from parallel.precision.fp8_support import MIN_CAPABILITY, SIZE_MULTIPLE

DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}
BF16_CAPABILITY = (8, 0)
"""Of Ampere; earlier cards compute BF16 as something else."""


def check_dtype(dtype: str, device: torch.device) -> None:
    """Refuse a number format that this device does not multiply itself.

    Raises:
        BenchmarkError: Names device and remedy.
    """
    needed = {"fp8": MIN_CAPABILITY["current"], "bf16": BF16_CAPABILITY}.get(dtype)
    if needed is None or (dtype == "bf16" and device.type == "cpu"):
        return
    least = f"a GPU of compute capability {needed[0]}.{needed[1]} or later"
    if device.type != "cuda":
        raise BenchmarkError(f"--dtype {dtype}: a CPU only emulates it: run on {least}, or drop it")
    own = compute_capability()
    if own < needed:
        raise BenchmarkError(
            f"--dtype {dtype}: it needs {least}; this one has {own[0]}.{own[1]}: drop it"
        )


def check_sizes(gemm: Gemm, dtype: str) -> None:
    """Refuse sizes whose product a kernel would not take.

    Raises:
        BenchmarkError: Names size and remedy.
    """
    if gemm.m < gemm.groups:
        raise BenchmarkError(
            f"{gemm.role}: {gemm.m} rows leave some of {gemm.groups} groups without any: raise"
            " --tokens"
        )
    multiple = SIZE_MULTIPLE["current"] if dtype == "fp8" else 1
    if gemm.groups > 1 and dtype != "fp8":
        multiple = GROUPED_ROW_BYTES // DTYPES[dtype].itemsize
    for name in ("n", "k"):
        if getattr(gemm, name) % multiple:
            raise BenchmarkError(
                f"{gemm.role}: {name} = {getattr(gemm, name)} is not a multiple of {multiple}, as"
                f" {'grouped ' if gemm.groups > 1 else ''}products in {dtype} need it: change the"
                " shape or the number format"
            )


def kernels(gemm: Gemm, dtype: str, device: torch.device) -> dict[str, Kernel]:
    """Return this product's implementations by name, on operands of their own.

    `mm` multiplies each group's rows alone. FP8 operands are quantized beforehand, with one scale
    for each (E4M3), and give BF16.
    """
    generator = torch.Generator(device).manual_seed(0)
    number_format = DTYPES[dtype]

    def operand(*size: int) -> Tensor:
        # torch draws no FP8 numbers.
        drawn = torch.bfloat16 if dtype == "fp8" else number_format
        return torch.randn(*size, generator=generator, device=device, dtype=drawn).to(number_format)

    x_mk = operand(gemm.m, gemm.k)
    w_gnk = operand(gemm.groups, gemm.n, gemm.k)
    w_gkn = w_gnk.transpose(-2, -1)
    ends_g = list(accumulate(gemm.rows))
    groups = zip(gemm.rows, ends_g, w_gkn, strict=True)
    pairs = [(x_mk[end - rows : end], w_kn) for rows, end, w_kn in groups]
    options: dict[str, Any] = {}
    multiply: Callable[..., Tensor] = torch.mm
    if dtype == "fp8":
        scale = torch.ones((), device=device)
        options = {"scale_a": scale, "scale_b": scale, "out_dtype": torch.bfloat16}
        multiply = torch._scaled_mm
    found: dict[str, Kernel] = {"mm": lambda: [multiply(x, w, **options) for x, w in pairs]}
    if gemm.groups > 1 and dtype in ("fp32", "bf16"):
        ends = torch.tensor(ends_g, device=device, dtype=torch.int32)
        found["grouped_mm"] = lambda: F.grouped_mm(x_mk, w_gkn, offs=ends)
    return found
