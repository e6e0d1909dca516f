"""What FP8 on tensor cores asks of GPU and sizes: pure arithmetic, said before anything starts.

Sources: Transformer Engine's `check_fp8_support`, `check_mxfp8_support` and
`check_fp8_block_scaling_support` (transformer_engine/pytorch/quantization.py), its
`assert_dim_for_fp8_exec`, and the block sizes of its quantizers.
"""

from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.precision.recipes import Fp8Scaling, Precision

CAPABILITY: dict[Fp8Scaling, tuple[int, int]] = {
    "delayed": (8, 9),
    "current": (8, 9),
    "blockwise": (9, 0),
    "mxfp8": (10, 0),
}
"""Least compute capability: 8.9 Ada, 9.0 Hopper, 10.0 Blackwell."""
MULTIPLE: dict[Fp8Scaling, int] = {"delayed": 16, "current": 16, "blockwise": 128, "mxfp8": 32}
"""What every extent of a matrix product on a rank must be a multiple of."""
_CARDS = {(8, 9): "L4, L40, RTX 40", (9, 0): "H100, H200", (10, 0): "B200, GB200"}


def fp8_faults(
    precision: Precision,
    layout: Layout,
    shape: ModelShape,
    batch: BatchSize,
    capability: tuple[int, int] | None = None,
) -> list[str]:
    """Return why a native FP8 recipe cannot run; none where it can, or where FP8 is off.

    `capability` is the GPU's; None: not known, not checked.
    """
    scaling = precision.scaling
    if scaling is None or not precision.is_native_fp8:
        return []
    found = []
    least = CAPABILITY[scaling]
    if capability is not None and capability < least:
        found.append(
            f'precision.fp8 = "{scaling}" needs compute capability {_text(least)} or later'
            f" ({_CARDS[least]}); this GPU has {_text(capability)}: {_remedy(capability)}"
        )
    multiple = MULTIPLE[scaling]
    for name, size in _extents(layout, shape, batch).items():
        if size % multiple:
            found.append(
                f'precision.fp8 = "{scaling}": {name} = {size} is not a multiple of {multiple}:'
                " change it or the layout, or choose another recipe"
            )
    return found


def _extents(layout: Layout, shape: ModelShape, batch: BatchSize) -> dict[str, int]:
    """Return the extents of a rank's products (routed tokens are padded by the engine)."""
    tp = layout.tp
    extents = {
        "hidden_size": shape.hidden_size,
        "seq_len * micro_batch_size / cp": batch.seq_len * batch.micro_batch_size // layout.cp,
        "num_heads * head_dim / tp": shape.num_heads * shape.v_head_dim // tp,
        "ffn_hidden_size / tp": shape.ffn_hidden_size // tp,
        "moe.expert_ffn_hidden_size / etp": shape.expert_ffn_hidden_size // layout.expert_tp,
        "moe.shared_expert_ffn_hidden_size / tp": shape.shared_expert_ffn_hidden_size // tp,
    }
    return {name: size for name, size in extents.items() if size}


def _remedy(capability: tuple[int, int]) -> str:
    able = [name for name, least in CAPABILITY.items() if capability >= least]
    if not able:
        return 'set precision.fp8 = "none"'
    return "choose from " + ", ".join(f'"{name}"' for name in able)


def _text(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
