"""FP8 quantization: which numbers share a scale, what the scale is, and the rounding.

Numbers are multiplied by their scale, saturated and rounded to nearest even by torch's FP8 types.
Per-tensor and blockwise scales take the largest magnitude to the largest code; blockwise ones are
cut to powers of two; MXFP8's exponent is rounded up (OCP Microscaling 1.0).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from tests.support.transformer_engine.operands import (
    BLOCK,
    MX_BIAS,
    MX_BLOCK,
    spread,
    torch_dtype,
    values,
)

FP32_EXPONENT_BITS = 23
LARGEST_FP32 = torch.finfo(torch.float32).max


def quantize(tensor: Tensor, quantizer: Any, output: Any = None, noop: Any = None) -> Any:
    """Quantize `tensor`, into `output` where there is one; where `noop` is set, leave it."""
    if noop is not None and noop.item():
        return output
    if output is None:
        shape, dtype, device = tensor.size(), tensor.dtype, tensor.device
        output = create_empty_quantized_tensor(quantizer, shape, dtype, device, False)
    fill = {
        "Float8Quantizer": _fill_delayed,
        "Float8CurrentScalingQuantizer": _fill_current,
        "Float8BlockQuantizer": _fill_blockwise,
        "MXFP8Quantizer": _fill_mxfp8,
    }
    kind = type(quantizer).__name__
    if kind not in fill:
        raise NotImplementedError(f"quantize: {kind}")
    with torch.no_grad():
        fill[kind](output, tensor.detach().float(), quantizer)
    return output


def create_empty_quantized_tensor(
    quantizer: Any, shape: Sequence[int], dtype: torch.dtype, device: Any, pin_memory: bool
) -> Any:
    """Return a quantized tensor of no numbers yet, with the buffers that its use asks for."""
    described = quantizer
    if type(quantizer).__name__ == "Float8Quantizer":
        # Of the same buffers as current scaling, which alone describes them.
        from transformer_engine.pytorch.tensor import Float8CurrentScalingQuantizer as Described

        specs = Described.inner_tensor_specs(quantizer, tuple(shape))
        kind = Described.storage_metadata(quantizer, dtype)
    else:
        specs = described.inner_tensor_specs(tuple(shape))
        kind = described.storage_metadata(dtype)
    buffers = {name: torch.zeros(size, dtype=form) for name, (size, form) in specs.items()}
    values_ = dict(kind["nontensor_kwargs"])
    values_ |= {kwarg: buffers.get(name) for name, kwarg in kind["cls"]._INNER_TENSORS}
    if quantizer.internal:
        return kind["cls"](**values_)
    return kind["cls"](shape=tuple(shape), dtype=dtype, device=torch.device("cpu"), **values_)


def split_quantize(
    tensor: Tensor, split_sections: Sequence[int], quantizer_list: Sequence[Any],
    disable_bulk_allocation: bool = False,
) -> list[Any]:  # fmt: skip
    """Quantize each expert's tokens by its own quantizer."""
    parts = torch.split(tensor, list(split_sections))
    return [quantize(part, one) for part, one in zip(parts, quantizer_list, strict=True)]


def bgrad_quantize(grad: Tensor, quantizer: Any) -> tuple[Tensor, Any]:
    """Return the bias's gradient, and the quantized gradient of the output."""
    grad_bias = grad.reshape(-1, grad.shape[-1]).float().sum(0).to(grad.dtype)
    return grad_bias, quantize(grad, quantizer)


def dequantize(input: Any, otype: Any) -> Tensor:
    """Return what a quantized tensor stands for."""
    return values(input).to(torch_dtype(otype))


def fp8_transpose(input: Tensor, dtype: Any, *, out: Tensor | None = None) -> Tensor:
    """Return stored bytes with the last dimension first."""
    turned = input.movedim(-1, 0).contiguous()
    return turned if out is None else out.copy_(turned)


def _fill_delayed(output: Any, x: Tensor, quantizer: Any) -> None:
    """Round by the scale of earlier steps, and note this amax for later ones."""
    quantizer.amax.copy_(torch.maximum(quantizer.amax, _amax(x)))
    _fill_per_tensor(output, x, quantizer.scale, quantizer.dtype)


def _fill_current(output: Any, x: Tensor, quantizer: Any) -> None:
    amax = _amax(x)
    if quantizer.with_amax_reduction:
        import torch.distributed as dist

        dist.all_reduce(amax, dist.ReduceOp.MAX, group=quantizer.amax_reduction_group)
    scale = _scale_by(quantizer, amax)
    _fill_per_tensor(output, x, scale, quantizer.dtype)


def _fill_per_tensor(output: Any, x: Tensor, scale: Tensor, dtype: Any) -> None:
    codes = round_to(x * scale, dtype)
    if output._data is not None:
        output._data.copy_(codes)
    if output._transpose is not None:
        output._transpose.copy_(codes.movedim(-1, 0))
        output._transpose_invalid = False
    output._scale_inv.copy_(1.0 / scale)


def _fill_blockwise(output: Any, x: Tensor, quantizer: Any) -> None:
    rows = x.reshape(-1, x.shape[-1])
    for matrix, data, scales in (
        (rows, output._rowwise_data, output._rowwise_scale_inv),
        (rows.T, output._columnwise_data, output._columnwise_scale_inv),
    ):
        if data is None or not matrix.numel():
            continue
        square = quantizer.block_scaling_dim == 2
        amax = block_amax(matrix, BLOCK if square else 1, BLOCK)
        inverse = 1.0 / _scale_by(quantizer, amax)
        _put_padded(scales, inverse if square else inverse.T)
        scaled = matrix * (1.0 / spread(scales, matrix.shape, square=square))
        data.copy_(round_to(scaled, quantizer.dtype).view(data.shape))


def _fill_mxfp8(output: Any, x: Tensor, quantizer: Any) -> None:
    if quantizer.with_2d_quantization:
        raise NotImplementedError("quantize: MXFP8Quantizer with square blocks")
    matrix = x.reshape(-1, x.shape[-1])
    if any(size % MX_BLOCK for size in matrix.shape):
        raise ValueError(f"quantize: MXFP8 wants multiples of {MX_BLOCK}, not {[*matrix.shape]}")
    for dim, data, scales in (
        (1, output._rowwise_data, output._rowwise_scale_inv),
        (0, output._columnwise_data, output._columnwise_scale_inv),
    ):
        if data is None or not matrix.numel():
            continue
        amax = block_amax(matrix, *((1, MX_BLOCK) if dim else (MX_BLOCK, 1)))
        exponents = exponents_of(amax, quantizer.dtype)
        _put_padded(scales, exponents)
        factors = torch.exp2(MX_BIAS - exponents.float()).repeat_interleave(MX_BLOCK, dim)
        data.copy_(round_to(matrix * factors, quantizer.dtype).view(data.shape))


def _scale_by(quantizer: Any, amax: Tensor) -> Tensor:
    limit, epsilon = largest(quantizer.dtype), quantizer.amax_epsilon
    return scale_of(amax, limit, epsilon, quantizer.force_pow_2_scales)


def scale_of(amax: Tensor, limit: float, epsilon: float, power_of_two: bool) -> Tensor:
    """Return what takes the largest magnitude to the largest code; 1 where there is none."""
    amax = amax.clamp(min=epsilon)
    scale = (limit / amax).clamp(max=LARGEST_FP32)
    scale = torch.where((amax > 0) & amax.isfinite(), scale, 1.0)
    if power_of_two:
        bits = scale.view(torch.int32)
        scale = ((bits >> FP32_EXPONENT_BITS) << FP32_EXPONENT_BITS).view(torch.float32)
    return scale


def exponents_of(amax: Tensor, dtype: Any) -> Tensor:
    """Return the exponents' bytes that MXFP8 scales blocks by: of amax / largest, rounded up."""
    ratio = amax * (1.0 / largest(dtype))
    mantissa, exponent = torch.frexp(ratio)  # ratio = mantissa 2**exponent, 0.5 <= mantissa < 1
    up = torch.where(mantissa == 0.5, exponent - 1, exponent)
    exponents = torch.where(ratio > 0, up + MX_BIAS, 0)
    return exponents.clamp(0, 254).to(torch.uint8)


def largest(dtype: Any) -> float:
    """Return the largest finite number of a format."""
    return float(torch.finfo(torch_dtype(dtype)).max)


def round_to(x: Tensor, dtype: Any) -> Tensor:
    """Return the bytes of the nearest codes, saturated."""
    limit = largest(dtype)
    return x.clamp(-limit, limit).to(torch_dtype(dtype)).view(torch.uint8)


def _amax(x: Tensor) -> Tensor:
    return x.abs().amax().view(1) if x.numel() else x.new_zeros(1)


def block_amax(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return the largest magnitude of each block of `rows` x `columns`; the last may be cut off."""
    filled = pad(x.abs(), (0, -x.shape[1] % columns, 0, -x.shape[0] % rows))
    blocks = filled.view(filled.shape[0] // rows, rows, filled.shape[1] // columns, columns)
    return blocks.amax(dim=(1, 3))


def _put_padded(target: Tensor, scales: Tensor) -> None:
    target.zero_()[: scales.shape[0], : scales.shape[1]].copy_(scales)
