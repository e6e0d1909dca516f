"""Matrix products, computed in FP32 from what the operands stand for.

The extension sees matrices as cuBLAS does, by columns. Read by rows, `D = B A` with
`transa`, `transb` for A and B transposed: forward X W^T ("TN": A is W), input gradient G W ("NN"),
weight gradient G^T X ("NT": A is X). Quantized operands lie along the inner dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.support.transformer_engine.operands import matrix, torch_dtype
from tests.support.transformer_engine.quantization import quantize


def generic_gemm(
    A: Any, transA: bool, B: Any, transB: bool, D: Tensor | None, quantizer: Any,
    output_dtype: Any, bias: Tensor | None, bias_type: Any, gelu: bool, gelu_in: Tensor | None,
    grad: bool, workspace: Tensor, workspace_size: int, accumulate: bool,
    use_split_accumulator: bool, comm_overlap: Any = None, comm_type: Any = None,
    extra_output: Any = None, bulk_overlap: bool = False, alpha: float = 1.0,
    beta: float | None = None,
) -> tuple[Any, Tensor | None, None, None]:  # fmt: skip
    """Return the product, and the gradient of the bias where `grad` asks for it."""
    if gelu or comm_overlap is not None or bulk_overlap:
        raise NotImplementedError("generic_gemm: GELU and overlap with communication")
    product = alpha * _product(A, transA, B, transB)
    grad_bias = None
    if bias is not None and grad:
        grad_bias = matrix(B, columnwise=transB).sum(0).to(bias.dtype)
    elif bias is not None:
        product = product + bias.float()
    if not transB:
        product = product.view(*B.size()[:-1], product.shape[-1])
    if D is not None:
        return _put(D, product, accumulate), grad_bias, None, None
    if quantizer is not None:
        return quantize(product, quantizer), grad_bias, None, None
    dtype = _dtype(B) if output_dtype is None else torch_dtype(output_dtype)
    return product.to(dtype), grad_bias, None, None


def te_general_grouped_gemm(
    A: Sequence[Any], transA: bool, B: Sequence[Any], transB: bool, D: Sequence[Tensor],
    D_type: Any, m_splits: Sequence[int] | None, bias: Sequence[Tensor], bias_type: Any,
    single_output: bool, pre_gelu_out: Sequence[Tensor], grad: bool, workspace: Sequence[Tensor],
    workspace_size: int, accumulate: bool, use_split_accumulator: bool, math_sm_count: int,
) -> Sequence[Tensor]:  # fmt: skip
    """Write each expert's product; returns the biases, or with `grad` their gradients."""
    if any(gelu_input.numel() for gelu_input in pre_gelu_out):
        raise NotImplementedError("te_general_grouped_gemm: GELU")
    outputs = D
    if single_output:
        assert m_splits is not None
        outputs = torch.split(D[0], list(m_splits))
    for one_a, one_b, output, one_bias in zip(A, B, outputs, bias, strict=True):
        product = _product(one_a, transA, one_b, transB)
        if one_bias.numel() and grad:
            one_bias.copy_(matrix(one_b, columnwise=transB).sum(0))
        elif one_bias.numel():
            product = product + one_bias.float()
        _put(output, product, accumulate)
    return bias


def _product(a: Any, transa: bool, b: Any, transb: bool) -> Tensor:
    left, right = matrix(b, columnwise=transb), matrix(a, columnwise=not transa)
    return (left.T if transb else left) @ (right.T if transa else right)


def _put(output: Tensor, product: Tensor, accumulate: bool) -> Tensor:
    product = product.reshape(output.shape)
    return output.add_(product) if accumulate else output.copy_(product)


def _dtype(operand: Any) -> torch.dtype:
    """Return the format of a tensor, or of what a quantized tensor was made from."""
    return operand.dtype if isinstance(operand, Tensor) else operand._dtype
