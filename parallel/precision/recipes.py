"""The `[precision]` section: number formats, FP8 recipes and kernel sets."""

from typing import Literal, Self

from pydantic import Field, model_validator

from parallel.frozen_model import FrozenModel

Fp8Scaling = Literal["delayed", "current", "blockwise", "mxfp8"]


class Precision(FrozenModel):
    """The `[precision]` section."""

    kernels: Literal["torch", "te"] = "torch"
    """Kernel set: torch-native modules (CPU and GPU) or Transformer Engine (GPU only)."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Of parameters and matmuls; optimizer states and the router stay in FP32."""
    fp8: Literal["none", "delayed", "current", "blockwise", "mxfp8", "emulated"] = "none"
    """FP8 scaling recipe of matmuls (Transformer Engine), or `emulated`: their inputs are quantized
    to FP8 and multiplied in FP32, slowly, to study a recipe's loss without an FP8 card (kernel set
    torch)."""
    fp8_scaling: Fp8Scaling | None = None
    """The recipe that `fp8 = "emulated"` emulates. Default: current."""
    fp8_format: Literal["hybrid", "e4m3"] | None = None
    """E4M3 forward and E5M2 for gradients, or E4M3 for all. Default: hybrid with delayed and
    current scaling, e4m3 with blockwise and mxfp8."""
    fp8_keep_first: int = Field(default=0, ge=0)
    """First layers whose matmuls stay in `dtype`."""
    fp8_keep_last: int = Field(default=0, ge=0)
    """Last layers whose matmuls stay in `dtype`."""
    fp8_parameters: bool = False
    """Keep the parameters themselves in FP8, beside FP32 masters (Transformer Engine)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fp8 == "none":
            self._refuse_without_fp8()
        elif self.fp8 == "emulated":
            if self.kernels != "torch":
                raise ValueError('fp8 = "emulated" needs kernels = "torch"')
            if self.fp8_parameters:
                raise ValueError('fp8_parameters does not go with fp8 = "emulated": remove it')
        else:
            self._check_native()
        return self

    def _refuse_without_fp8(self) -> None:
        for key in ("fp8_scaling", "fp8_format", "fp8_keep_first", "fp8_keep_last",
                    "fp8_parameters"):  # fmt: skip
            if getattr(self, key):
                raise ValueError(f'{key} does nothing with fp8 = "none": set fp8 or remove it')

    def _check_native(self) -> None:
        if self.kernels != "te" or self.dtype != "bf16":
            raise ValueError(
                f'fp8 = "{self.fp8}" needs kernels = "te" and dtype = "bf16"; without an FP8 card,'
                f' fp8 = "emulated" with fp8_scaling = "{self.fp8}" gives its losses'
            )
        if self.fp8_scaling is not None:
            raise ValueError('fp8_scaling goes with fp8 = "emulated": remove it')
        if self.fp8 == "delayed" and (self.fp8_keep_first or self.fp8_keep_last):
            raise ValueError(
                'fp8_keep_first and fp8_keep_last do not go with fp8 = "delayed" (megatron-core):'
                ' use fp8 = "current"'
            )

    @property
    def matmul_bits(self) -> int:
        """Bits of a number that matmuls take, as laws of precision count them.

        Emulated FP8 counts as FP8: its products are of the same numbers.
        """
        if self.fp8 != "none":
            return 8
        return 16 if self.dtype == "bf16" else 32

    @property
    def is_native_fp8(self) -> bool:
        """Whether matmuls run on FP8 tensor cores."""
        return self.fp8 not in ("none", "emulated")

    @property
    def scaling(self) -> Fp8Scaling | None:
        """The recipe, native or emulated; None without FP8."""
        if self.fp8 == "none":
            return None
        return (self.fp8_scaling or "current") if self.fp8 == "emulated" else self.fp8

    @property
    def formats(self) -> Literal["hybrid", "e4m3"]:
        """The number formats of FP8, by default the recipe's."""
        default: Literal["hybrid", "e4m3"] = (
            "e4m3" if self.scaling in ("blockwise", "mxfp8") else "hybrid"
        )
        return self.fp8_format or default

    @property
    def megatron_recipe(self) -> str:
        """megatron-core's name of a native FP8 recipe (`fp8_recipe`)."""
        return "tensorwise" if self.fp8 == "current" else self.fp8

    @property
    def element_bytes(self) -> int:
        """Bytes of a parameter and of an activation (FP8 recipes keep both in `dtype`)."""
        return 2 if self.dtype == "bf16" else 4
