"""FP8 quantization as Transformer Engine does it: formats, and scales per tensor or per block.

Formats: arXiv:2209.05433. Scaling recipes:

- `current`: one scale per tensor, largest code / amax.
- `delayed`: the same with the amax of the step before (megatron-core's history of one).
- `blockwise` (DeepSeek-V3, arXiv:2412.19437, section 3.3): one scale per 128 numbers along the
  matmul's inner dimension, per 128 x 128 of a weight; powers of two.
- `mxfp8` (OCP Microscaling 1.0; arXiv:2310.10537): one scale per 32 numbers along the inner
  dimension, a power of two whose exponent is rounded up.
"""

import torch
from torch import Tensor

from parallel.precision.recipes import Fp8Scaling

DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}
BLOCK_SIZE = {"blockwise": 128, "mxfp8": 32}


def cast_to_fp8(x: Tensor, number_format: str) -> Tensor:
    """Return FP32 numbers rounded to the nearest FP8 code, ties to even, saturating; in FP32."""
    largest = LARGEST[number_format]
    return x.clamp(-largest, largest).to(DTYPES[number_format]).float()


def quantize_dequantize(
    x: Tensor,
    number_format: str,
    scaling: Fp8Scaling,
    *,
    dim: int,
    is_weight: bool = False,
    amax: Tensor | None = None,
) -> Tensor:
    """Return a matrix quantized to FP8 and dequantized, in FP32: what an FP8 matmul sees.

    Args:
        x: The matrix [rows, columns].
        number_format: `e4m3` or `e5m2`.
        scaling: The scaling recipe.
        dim: The inner dimension of the matmul; blocks lie along it.
        is_weight: `blockwise`: blocks are square.
        amax: `delayed`: the largest magnitude of the step before.
    """
    x = x.float()
    if scaling in ("current", "delayed"):
        amax = x.abs().amax() if amax is None else amax
        scale = scale_of(amax, LARGEST[number_format])
        # Transformer Engine keeps and multiplies by the inverse, which rounds otherwise.
        return cast_to_fp8(x * scale, number_format) * scale.reciprocal()
    size = BLOCK_SIZE[scaling]
    is_square = is_weight and scaling == "blockwise"
    rows, columns = (size if is_square or dim == axis else 1 for axis in (0, 1))
    amaxes = _block_amaxes(x, rows, columns)
    largest = LARGEST[number_format]
    if scaling == "mxfp8":
        scales = torch.exp2(-torch.ceil(torch.log2(amaxes / largest)))
    else:
        scales = torch.exp2(torch.floor(torch.log2(largest / amaxes)))
    scales = torch.where(amaxes > 0, scales, 1.0)
    scales = scales.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    scales = scales[: x.shape[0], : x.shape[1]]
    return cast_to_fp8(x * scales, number_format) / scales


def scale_of(amax: Tensor, largest: float | Tensor) -> Tensor:
    """Return largest code / amax, finite; 1 where it says nothing."""
    scale = (largest / amax).clamp(max=torch.finfo(torch.float32).max)
    return torch.where((amax > 0) & amax.isfinite(), scale, 1.0)


def _block_amaxes(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return the largest magnitude of every block; the last ones may be smaller than the rest."""
    padding = (0, -x.shape[1] % columns, 0, -x.shape[0] % rows)
    padded = torch.nn.functional.pad(x.abs(), padding)
    blocks = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    return blocks.amax(dim=(1, 3))
