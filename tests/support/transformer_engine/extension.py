"""The module that stands in the place of `transformer_engine_torch`."""

import types
from typing import Any, NoReturn

from tests.support.transformer_engine import (
    delayed_scaling,
    enums,
    fused_attention,
    gemm,
    master_weights,
    multi_tensor,
    norms,
    packed,
    quantization,
    softmax,
)
from tests.support.transformer_engine.locate import EXTENSION

ANSWERED: dict[types.ModuleType, str] = {
    gemm: "generic_gemm te_general_grouped_gemm",
    norms: "rmsnorm_fwd rmsnorm_bwd",
    softmax: "scaled_softmax_forward scaled_softmax_backward"
    " scaled_masked_softmax_forward scaled_masked_softmax_backward"
    " scaled_upper_triang_masked_softmax_forward scaled_upper_triang_masked_softmax_backward"
    " scaled_aligned_causal_masked_softmax_forward scaled_aligned_causal_masked_softmax_backward",
    packed: "convert_thd_to_bshd convert_bshd_to_thd"
    " fused_multi_row_padding fused_multi_row_unpadding",
    multi_tensor: "multi_tensor_scale multi_tensor_l2norm multi_tensor_adam",
    quantization: "quantize dequantize split_quantize bgrad_quantize fp8_transpose"
    " create_empty_quantized_tensor",
    fused_attention: "get_fused_attn_backend fused_attn_fwd fused_attn_bwd",
    master_weights: "compute_amax multi_tensor_compute_scale_and_scale_inv"
    " fp8_block_scaling_compute_partial_amax fp8_block_scaling_partial_cast",
    delayed_scaling: "fused_amax_and_scale_update_after_reduction",
}
"""The functions that the reference answers, by the file that does."""
VERSIONS = {
    "get_cudnn_version": 91900,
    # Below 13.3 experts take their own products, without the kernels for grouped tensors.
    "get_cublasLt_version": 130000,
    "get_num_cublas_streams": 4,
}
ABSENT = ("flash_attention", "get_attention_backend")
"""Hooks of plugins, which Transformer Engine looks for and does without."""


class NotAnsweredError(NotImplementedError, AttributeError):
    """Transformer Engine asked for a function that the reference does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{EXTENSION}.{name} was called, which the reference on a CPU does not answer:"
            " write it in tests/support/transformer_engine and list it in extension.py"
        )


class Unanswered:
    """A function or class of the extension by name only: tables of kernels refer to all."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise NotAnsweredError(self.name)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotAnsweredError(f"{self.name}.{name}")


class Extension(types.ModuleType):
    """The module; a name without an answer is one that raises when it is used."""

    def __getattr__(self, name: str) -> Unanswered:
        if name.startswith("__") or name in ABSENT:
            raise AttributeError(name)
        unanswered = Unanswered(name)
        setattr(self, name, unanswered)
        return unanswered


def make_extension() -> Extension:
    """Return the reference of the extension."""
    extension = Extension(EXTENSION)
    extension.__file__ = __file__
    for module, names in ANSWERED.items():
        for name in names.split():
            setattr(extension, name, getattr(module, name))
    for name, member in vars(enums).items():
        if isinstance(member, type) and member.__module__ == enums.__name__:
            setattr(extension, name, member)
    for name, version in VERSIONS.items():
        setattr(extension, name, lambda version=version: version)
    return extension
