"""The numbers that an operand of a kernel stands for, whatever its format, in FP32.

A quantized tensor may hold its numbers twice: rounded along rows (rowwise), and along columns
(columnwise, which per-tensor and blockwise scaling store transposed).
"""

from typing import Any

import torch
from torch import Tensor

from tests.support.transformer_engine.enums import DType

TORCH_DTYPES = {
    DType.kByte: torch.uint8,
    DType.kInt32: torch.int32,
    DType.kFloat32: torch.float32,
    DType.kFloat16: torch.float16,
    DType.kBFloat16: torch.bfloat16,
    DType.kFloat8E4M3: torch.float8_e4m3fn,
    DType.kFloat8E5M2: torch.float8_e5m2,
}
BLOCK = 128
MX_BLOCK = 32
MX_BIAS = 127
"""An MXFP8 scale is the byte of an exponent, E8M0: 2 to the power of (byte - 127)."""


def torch_dtype(dtype: Any) -> torch.dtype:
    """Return torch's name of a number format of the extension."""
    return TORCH_DTYPES[DType(int(dtype))]


def values(operand: Any, *, columnwise: bool = False) -> Tensor:
    """Return an operand in FP32, in its logical shape."""
    if hasattr(operand, "_scale_inv"):
        return _per_tensor(operand, columnwise)
    if hasattr(operand, "_is_2D_scaled"):
        return _blockwise(operand, columnwise)
    if hasattr(operand, "_with_gemm_swizzled_scales"):
        return _mxfp8(operand, columnwise)
    return operand.float()


def matrix(operand: Any, *, columnwise: bool = False) -> Tensor:
    """Return an operand in FP32 as a matrix: its last dimension is the columns."""
    whole = values(operand, columnwise=columnwise)
    return whole.reshape(-1, whole.shape[-1])


def _per_tensor(operand: Any, columnwise: bool) -> Tensor:
    transposed = operand._transpose is not None and not operand._transpose_invalid
    if transposed and (columnwise or operand._data is None):
        return (_codes(operand._transpose, operand) * operand._scale_inv).movedim(0, -1)
    assert operand._data is not None, "rows are asked of a tensor that was rounded along columns"
    return _codes(operand._data, operand) * operand._scale_inv


def _blockwise(operand: Any, columnwise: bool) -> Tensor:
    if columnwise or operand._rowwise_data is None:
        codes, scales = _codes(operand._columnwise_data, operand), operand._columnwise_scale_inv
        matrix_ = codes.flatten(1)
        scaled = matrix_ * spread(scales, matrix_.shape, square=operand._is_2D_scaled)
        return scaled.view(codes.shape).movedim(0, -1)
    codes, scales = _codes(operand._rowwise_data, operand), operand._rowwise_scale_inv
    matrix_ = codes.reshape(-1, codes.shape[-1])
    return (matrix_ * spread(scales, matrix_.shape, square=operand._is_2D_scaled)).view(codes.shape)


def spread(scales: Tensor, shape: torch.Size, *, square: bool) -> Tensor:
    """Return the scale of each number of a matrix from blockwise scaling's padded scales.

    The scales of square blocks lie as the blocks do, those of rows of 128 transposed.
    """
    scales = scales.repeat_interleave(BLOCK, 0) if square else scales.T
    return scales.repeat_interleave(BLOCK, 1)[: shape[0], : shape[1]]


def _mxfp8(operand: Any, columnwise: bool) -> Tensor:
    if columnwise or operand._rowwise_data is None:
        data, scales, dim = operand._columnwise_data, operand._columnwise_scale_inv, 0
    else:
        data, scales, dim = operand._rowwise_data, operand._rowwise_scale_inv, 1
    codes = _codes(data, operand)
    rows = codes.reshape(-1, codes.shape[-1])
    factors = torch.exp2(scales.float() - MX_BIAS).repeat_interleave(MX_BLOCK, dim)
    return (rows * factors[: rows.shape[0], : rows.shape[1]]).view(codes.shape)


def _codes(data: Tensor, operand: Any) -> Tensor:
    """Return stored bytes as the FP8 numbers that they are, in FP32."""
    return data.view(torch_dtype(operand._fp8_dtype)).float()
