"""The step of delayed scaling that follows the reduction of amaxes over ranks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.support.transformer_engine.quantization import LARGEST_FP32, largest


def fused_amax_and_scale_update_after_reduction(
    amax_reduction_buffer: Tensor, amax_histories: Sequence[Tensor], scales: Sequence[Tensor],
    amax_compute_algo: str, fp8_dtype: Any, margin: float,
) -> None:  # fmt: skip
    """Take the reduced amaxes into the histories [steps, tensors], and update the scales.

    A tensor without an amax keeps its scale. Row 0 of a history collects the step under way.
    """
    reduced = amax_reduction_buffer.split([scale.numel() for scale in scales])
    for amax, history, scale in zip(reduced, amax_histories, scales, strict=True):
        history[0] = amax
        known = history.amax(0) if amax_compute_algo == "max" else history[0].clone()
        history.copy_(history.roll(-1, 0))
        history[0] = 0.0
        factor = (largest(fp8_dtype) / known / 2**margin).clamp(max=LARGEST_FP32)
        scale.copy_(torch.where((known > 0) & known.isfinite(), factor, scale))
