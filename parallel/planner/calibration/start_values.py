"""Where fits of kernel parameters start: orders of magnitude from the architectures' manuals.

Tiles are those that cuBLAS and CUTLASS have kernels for (Hopper: one SM, up to 128 x 256;
Blackwell: a pair of SMs, 256 x 256 for the pair's share). Static power is about what an idle board
draws at full clock; the joules of a byte are those of HBM3 (about 4 pJ a bit); the exponent 0.4 is
between 1/3 (power as the cube of the clock) and 1/2.
"""

from typing import Any

from parallel.hardware.kernel_parameters import KernelParameters

_WIDTHS = (128, 256), (256, 128), (128, 192), (192, 128), (128, 160), (128, 128), (128, 96)
_HOPPER_TILES = (*_WIDTHS, (128, 64), (64, 64))
_BLACKWELL_TILES = (
    *((256, 256), (256, 192), (256, 160), (256, 128), (256, 96)),
    *((128, 256), (128, 192), (128, 160), (128, 128), (128, 96), (128, 64)),
)
_JOULES_PER_FLOP = {"bf16": 1.0e-12, "fp8": 5e-13, "fp8-blockwise": 5e-13, "nvfp4": 2e-13}
_ATTENTION_JOULES_PER_FLOP = 7.3e-13
"""Measured: board watts of attention_fwd.csv less the static ones, over its FLOP/s: 7.2 to 7.7e-13
on H200, B200 and GB200."""


def start_values(architecture: str) -> KernelParameters:
    """Return the values from which a card of an architecture is fitted."""
    blackwell = architecture == "blackwell"
    precisions = _JOULES_PER_FLOP if blackwell else list(_JOULES_PER_FLOP)[:3]
    return KernelParameters.model_validate(
        {
            "fitted_on": "",
            "launch_seconds": 2e-6,
            "memory_efficiency": 0.8,
            "stream_efficiency": 0.8 if blackwell else 0.9,
            "gather_efficiency": 0.5,
            "split_seconds": 3e-6,
            "routing_seconds": 1e-5,
            "routing_entry_seconds": 1e-10,
            "tiles": _BLACKWELL_TILES if blackwell else _HOPPER_TILES,
            "static_watts": 100.0,
            "joules_per_byte": 3e-11,
            "throttle_exponent": 0.4,
            "power_response_seconds": 3e-3,
            "matrix": {name: _matrix(name, blackwell) for name in precisions},
            "attention_forward": _attention(0.75, 256 if blackwell else 128),
            "attention_backward": _attention(0.6, 128),
        }
    )


def _matrix(precision: str, blackwell: bool) -> dict[str, Any]:
    wide = blackwell and precision in ("bf16", "fp8")
    return {
        "efficiency": 0.85,
        "tile_seconds": 1e-6,
        "small_tile_penalty": 0.1,
        "joules_per_flop": _JOULES_PER_FLOP[precision],
        "splits_k": precision == "bf16",
        "largest_tile": 256 * 256 if wide else 128 * 256,
        "grouped_efficiency": 0.9,
    }


def _attention(efficiency: float, block: int) -> dict[str, Any]:
    return {
        "efficiency": efficiency,
        "softmax_seconds": 5e-11,
        "wide_head_stretch": 1.05,
        "block_seconds": 4e-6,
        "fixed_seconds": 5e-6,
        "joules_per_flop": _ATTENTION_JOULES_PER_FLOP,
        "block": block,
    }
