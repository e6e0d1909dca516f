"""What a kernel set cannot do of a model, said before anything is built."""

from moe.config.model import ModelConfig
from parallel.layout.layout import TE_RECOMPUTE_MODULES, Layout
from parallel.precision.recipes import Precision

GROUPED_ROW_BYTES = 16
"""torch's grouped matrix product wants rows in multiples of this (`torch._grouped_mm`)."""


def kernel_fault(model: ModelConfig, layout: Layout, precision: Precision) -> str | None:
    """Return what the kernel set cannot do well and what to change; None where it can do all."""
    if precision.kernels == "torch" and layout.context_exchange not in {None, "all_gather"}:
        return (
            f'parallel.context_exchange = "{layout.context_exchange}" is not in precision.kernels ='
            ' "torch", which gathers keys and values: set it to "all_gather"'
        )
    return (
        build_fault(model, precision)
        or _overlap_fault(model, layout)
        or _te_fault(model, layout, precision)
        or _recompute_fault(layout, precision)
        or _grouped_fault(model, layout, precision)
    )


def packed_fault(layout: Layout, precision: Precision, micro_batch_size: int) -> str | None:
    """Return what attention inside documents (`data.document_mask`) cannot run with."""
    if precision.kernels != "te" or (micro_batch_size == 1 and layout.cp == 1):
        return None
    return (
        'data.document_mask with precision.kernels = "te" needs train.micro_batch_size = 1'
        " and parallel.cp = 1 (Transformer Engine's packed sequences)"
    )


def build_fault(model: ModelConfig, precision: Precision) -> str | None:
    """Return what the kernel set cannot do at all, and what to change."""
    if precision.kernels != "te" or model.qk_norm != "full":
        return None
    return (
        'qk_norm = "full" is not in precision.kernels = "te", whose norm sees one rank\'s heads:'
        ' set precision.kernels = "torch", or qk_norm = "head"'
    )


def _overlap_fault(model: ModelConfig, layout: Layout) -> str | None:
    """Return what the combined schedule of `overlap_experts` cannot run."""
    if not (layout.overlap_experts and model.mtp_layers):
        return None
    return (
        f"model.mtp_layers = {model.mtp_layers} is not in parallel.overlap_experts = true, whose"
        " parts tell layers of multi-token prediction nothing of missing tokens: set"
        " parallel.overlap_experts = false, or model.mtp_layers = 0"
    )


def _te_fault(model: ModelConfig, layout: Layout, precision: Precision) -> str | None:
    """Return what does not run, or train, in kernel set `te`."""
    if precision.kernels != "te":
        return None
    if precision.fp8_parameters and (fault := _fp8_parameters_fault(model, layout, precision)):
        return fault
    return _context_fault(model, layout, precision) if layout.cp > 1 else None


def _fp8_parameters_fault(model: ModelConfig, layout: Layout, precision: Precision) -> str | None:
    """Return why FP8 parameters cannot be rounded from masters.

    With MXFP8, megatron-core gathers masters in BF16, in the buffer of the gradients: with overlap
    its own training loop has to put them there, and 0.16 loses parameters in FP32.
    """
    if not layout.distributed_optimizer:
        return (
            "precision.fp8_parameters = true needs parallel.distributed_optimizer = true, whose"
            " FP32 masters they are rounded from: set it to true, or precision.fp8_parameters ="
            " false"
        )
    if precision.fp8 != "mxfp8":
        return None
    for setting, is_set in (
        ("parallel.overlap_param_gather = true", layout.overlap_param_gather),
        ("model.attention_sinks = true", model.attention_sinks),
    ):
        if is_set:
            return (
                f'{setting} does not go with precision.fp8 = "mxfp8" and precision.fp8_parameters ='
                " true: set precision.fp8_parameters = false, or another precision.fp8"
            )
    return None


def _context_fault(model: ModelConfig, layout: Layout, precision: Precision) -> str | None:
    """Return what Transformer Engine's attention over context-parallel ranks has no backend for."""
    if precision.dtype == "fp32":
        return (
            f'precision.dtype = "fp32" is not in precision.kernels = "te" with parallel.cp ='
            f' {layout.cp}: set parallel.cp = 1, or precision.kernels = "torch"'
        )
    exchange = layout.context_exchange or "p2p"
    # The rules of attn_forward_func_with_cp (Transformer Engine 2.20).
    able = {
        f"model.sliding_window = {model.sliding_window}": ("all_gather", "a2a"),
        "model.attention_sinks = true": ("a2a",),
    }
    asked = (model.sliding_window is not None, model.attention_sinks)
    for (setting, exchanges), is_asked in zip(able.items(), asked, strict=True):
        if is_asked and exchange not in exchanges:
            choices = " or ".join(f'"{one}"' for one in exchanges)
            return (
                f'{setting} is not in precision.kernels = "te" with parallel.context_exchange ='
                f' "{exchange}": set it to {choices}, or precision.kernels = "torch"'
            )
    return None


def _recompute_fault(layout: Layout, precision: Precision) -> str | None:
    """Return which module the kernel set cannot recompute alone."""
    if layout.recompute != "selective" or precision.kernels == "te":
        return None
    for name in layout.recompute_modules:
        if name in TE_RECOMPUTE_MODULES:
            return (
                f'parallel.recompute_modules: "{name}" needs precision.kernels = "te": recompute'
                ' "moe" instead'
            )
    return None


def _grouped_fault(model: ModelConfig, layout: Layout, precision: Precision) -> str | None:
    """Return which size would cost a copy of all experts' weights a step, padded."""
    if model.moe is None or precision.kernels == "te":
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
