"""Precision recipes and kernel sets: what numbers a run computes with, and with whose kernels."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Precision(BaseModel):
    """The `[precision]` section."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kernels: Literal["torch", "te"] = "torch"
    """Kernel set: torch-native modules (CPU and GPU) or Transformer Engine (GPU only)."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Parameters and matrix products; optimizer states and the router stay in FP32."""
    fp8: Literal["none", "delayed", "current", "blockwise", "mxfp8"] = "none"
    """FP8 scaling recipe of matrix products (Transformer Engine only)."""

    @property
    def element_bytes(self) -> int:
        """Bytes of a parameter and of an activation (FP8 recipes keep both in `dtype`)."""
        return 2 if self.dtype == "bf16" else 4
