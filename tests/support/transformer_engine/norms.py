"""RMSNorm and its gradient. Shapes: T tokens, H hidden."""

from typing import Any

import torch
from torch import Tensor

from tests.support.transformer_engine.operands import torch_dtype
from tests.support.transformer_engine.quantization import quantize


def rmsnorm_fwd(
    input: Tensor, weight: Tensor, eps: float, ln_out: Any, quantizer: Any, otype: Any,
    sm_margin: int, zero_centered_gamma: bool,
) -> tuple[Any, None, Tensor]:  # fmt: skip
    """Return the norm of `input` [T, H], and one over the root mean square [T]."""
    x = input.float()
    inverse_rms = torch.rsqrt(x.pow(2).mean(-1) + eps)
    y = x * inverse_rms[:, None] * _gain(weight, zero_centered_gamma)
    if quantizer is None:
        y = y.to(otype if isinstance(otype, torch.dtype) else torch_dtype(otype))
        return (y if ln_out is None else ln_out.copy_(y)), None, inverse_rms
    # Only delayed scaling's kernel rounds once; the others write the norm, then read it.
    fused = type(quantizer).__name__ == "Float8Quantizer"
    return quantize(y if fused else y.to(input.dtype), quantizer, ln_out), None, inverse_rms


def rmsnorm_bwd(
    dz: Tensor, x: Tensor, rsigma: Tensor, gamma: Tensor, sm_margin: int, zero_centered_gamma: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the input [T, H] and of the weight [H]."""
    normed = x.float() * rsigma[:, None]
    grad_normed = dz.float() * _gain(gamma, zero_centered_gamma)
    parallel = (grad_normed * normed).mean(-1, keepdim=True)
    grad_x = rsigma[:, None] * (grad_normed - normed * parallel)
    return grad_x.to(x.dtype), (dz.float() * normed).sum(0).to(gamma.dtype)


def _gain(weight: Tensor, zero_centered: bool) -> Tensor:
    return weight.float() + 1.0 if zero_centered else weight.float()
