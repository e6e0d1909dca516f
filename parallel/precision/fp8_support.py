"""What FP8 on tensor cores requires of GPU and sizes, as pure arithmetic, checked before a start.

Sources, all of Transformer Engine: the cards of `check_fp8_support`, `check_mxfp8_support` and
`check_fp8_block_scaling_support` (transformer_engine/pytorch/quantization.py); the sizes of
`assert_dim_for_fp8_exec` (utils.py) and of `MXFP8Quantizer.make_empty`. Blocks of 128 may be cut
off at a matrix's end (`Float8BlockQuantizer.get_scale_shape` rounds up, and
tests/pytorch/test_float8_blockwise_gemm_exact.py multiplies 320 x 64 by 64 x 336).
"""

from parallel.errors import ParallelError
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.precision.recipes import Fp8Scaling, Precision

MIN_CAPABILITY: dict[Fp8Scaling, tuple[int, int]] = {
    "delayed": (8, 9),
    "current": (8, 9),
    "blockwise": (9, 0),
    "mxfp8": (10, 0),
}
"""Lowest compute capability: 8.9 Ada, 9.0 Hopper, 10.0 Blackwell."""
SIZE_MULTIPLE: dict[Fp8Scaling, int] = {
    "delayed": 16,
    "current": 16,
    "blockwise": 16,
    "mxfp8": 32,
}
"""What every dimension of a matmul on a rank must be a multiple of."""
_CARDS = {(8, 9): "L4, L40, RTX 40", (9, 0): "H100, H200", (10, 0): "B200, GB200"}


def check_fp8(
    precision: Precision,
    layout: Layout,
    shape: ModelShape,
    batch: BatchSize,
    capability: tuple[int, int] | None = None,
) -> None:
    """Refuse a native FP8 recipe that cannot run; arguments as for `fp8_faults`.

    Raises:
        ParallelError: The first fault, and what to change.
    """
    faults = fp8_faults(precision, layout, shape, batch, capability)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ParallelError(faults[0] + more)


def fp8_faults(
    precision: Precision,
    layout: Layout,
    shape: ModelShape,
    batch: BatchSize,
    capability: tuple[int, int] | None = None,
) -> list[str]:
    """Return why a native FP8 recipe cannot run; empty where it can, or where FP8 is off.

    Args:
        precision: Its recipe.
        layout: Divides sizes over ranks.
        shape: The model.
        batch: Its tokens are a dimension of every matmul.
        capability: Compute capability of the GPU; None: not known, not checked.
    """
    scaling = precision.scaling
    if scaling is None or not precision.is_native_fp8:
        return []
    faults = []
    minimum = MIN_CAPABILITY[scaling]
    if capability is not None and capability < minimum:
        faults.append(
            f'precision.fp8 = "{scaling}" needs compute capability {_text(minimum)} or later'
            f" ({_CARDS[minimum]}); this GPU has {_text(capability)}: {_remedy(capability)}"
        )
    multiple = SIZE_MULTIPLE[scaling]
    for name, size in _dimensions(layout, shape, batch).items():
        if size % multiple:
            faults.append(
                f'precision.fp8 = "{scaling}": {name} = {size} is not a multiple of {multiple}:'
                " change it or the layout, or choose another recipe"
            )
    return faults


def _dimensions(layout: Layout, shape: ModelShape, batch: BatchSize) -> dict[str, int]:
    """Return the dimensions of a rank's matmuls (megatron-core pads routed tokens itself)."""
    tp = layout.tp
    dimensions = {
        "hidden_size": shape.hidden_size,
        "seq_len * micro_batch_size / cp": batch.seq_len * batch.micro_batch_size // layout.cp,
        "num_heads * head_dim / tp": shape.num_heads * shape.v_head_dim // tp,
        "ffn_hidden_size / tp": shape.ffn_hidden_size // tp,
        "moe.expert_ffn_hidden_size / etp": shape.expert_ffn_hidden_size // layout.expert_tp,
        "moe.shared_expert_ffn_hidden_size / tp": shape.shared_expert_ffn_hidden_size // tp,
    }
    return {name: size for name, size in dimensions.items() if size}


def _remedy(capability: tuple[int, int]) -> str:
    supported = [name for name, minimum in MIN_CAPABILITY.items() if capability >= minimum]
    if not supported:
        return 'set precision.fp8 = "none"'
    return "choose from " + ", ".join(f'"{name}"' for name in supported)


def _text(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
