"""What a kernel set cannot do of a model, said before anything is built."""

from moe.config.model import ModelConfig
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision

GROUPED_ROW_BYTES = 16
"""torch's grouped matrix product wants rows in multiples of this (`torch._grouped_mm`)."""


def kernel_fault(model: ModelConfig, layout: Layout, precision: Precision) -> str | None:
    """Return what the kernel set cannot do and what to change; None where it can do all."""
    if precision.kernels == "te":
        return _te_fault(model)
    return _grouped_fault(model, layout, precision)


def _te_fault(model: ModelConfig) -> str | None:
    if model.qk_norm != "full":
        return None
    return (
        'qk_norm = "full" is not in precision.kernels = "te", whose norm sees one rank\'s heads:'
        ' set precision.kernels = "torch", or qk_norm = "head"'
    )


def _grouped_fault(model: ModelConfig, layout: Layout, precision: Precision) -> str | None:
    if model.moe is None:
        return None
    multiple = GROUPED_ROW_BYTES // precision.element_bytes
    inner = model.moe.expert_ffn_hidden_size
    sizes = {
        f"hidden_size={model.hidden_size}": model.hidden_size,
        f"moe.expert_ffn_hidden_size={inner} over etp={layout.expert_tp}": inner
        // layout.expert_tp,
    }
    for name, size in sizes.items():
        if size % multiple:
            return (
                f'{name}: with precision.dtype = "{precision.dtype}" torch\'s grouped products need'
                f" a multiple of {multiple} on each rank: change it"
            )
    return None
