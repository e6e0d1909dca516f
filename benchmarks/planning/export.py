"""A layout in the words of other programs: Megatron-LM's arguments, Megatron-Bridge's settings.

Names are those of NVIDIA/Megatron-LM at core_v0.19.0 (`megatron/training/arguments.py`, which
makes arguments of the fields of `TransformerConfig`) and of NVIDIA-NeMo/Megatron-Bridge at
067f987d (`src/megatron/bridge/training/config.py`, `comm_overlap.py`, `mixed_precision.py`).
"""

from typing import Any

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision

_MIXED_PRECISIONS = {
    "none": "bf16_mixed",
    "delayed": "bf16_with_fp8_delayed_scaling_mixed",
    "current": "bf16_with_fp8_current_scaling_mixed",
    "blockwise": "bf16_with_fp8_subchannel_scaling_mixed",
    "mxfp8": "bf16_with_mxfp8_mixed",
}


def megatron_arguments(work: Workload) -> str:
    """Return arguments of Megatron-LM's `pretrain_gpt.py`, one a line, for the layout alone."""
    arguments = {
        "seq-length": work.batch.seq_len,
        "micro-batch-size": work.batch.micro_batch_size,
        "global-batch-size": work.batch.global_batch_size,
    }
    words: dict[str, Any] = arguments | _sizes(work, chunks="num_virtual_stages_per_pipeline_rank")
    layout = work.layout
    words |= {
        "use_distributed_optimizer": layout.distributed_optimizer,
        "overlap_grad_reduce": layout.overlap_grad_reduce,
        "overlap_param_gather": layout.overlap_param_gather,
        "overlap_moe_expert_parallel_comm": layout.overlap_experts,
        "bf16": work.precision.dtype == "bf16",
        "transformer_impl": "transformer_engine" if work.precision.kernels == "te" else "local",
    }
    if work.precision.is_native_fp8:
        words["fp8_format"] = work.precision.formats
        words["fp8_recipe"] = work.precision.megatron_recipe
        words |= _kept_in_bf16(work.precision)
    return " \\\n".join(_argument(name, value) for name, value in words.items() if value)


def bridge_settings(work: Workload) -> str:
    """Return Python lines that set the layout in a Megatron-Bridge `ConfigContainer`, `cfg`."""
    layout = work.layout
    model = _sizes(work, chunks="virtual_pipeline_model_parallel_size")
    if work.precision.is_native_fp8:
        model |= _kept_in_bf16(work.precision)
    model["seq_length"] = work.batch.seq_len
    if layout.vpp == 1 or layout.stage_layers is not None:
        model["virtual_pipeline_model_parallel_size"] = layout.vpp if layout.vpp > 1 else None
    settings = {f"model.{name}": value for name, value in model.items()}
    settings |= {
        "model.sequence_parallel": bool(layout.sp),
        "train.micro_batch_size": work.batch.micro_batch_size,
        "train.global_batch_size": work.batch.global_batch_size,
        "dataset.seq_length": work.batch.seq_len,
        "ddp.use_distributed_optimizer": layout.distributed_optimizer,
        "ddp.overlap_grad_reduce": layout.overlap_grad_reduce,
        "ddp.overlap_param_gather": layout.overlap_param_gather,
    }
    if work.precision.dtype == "bf16":
        settings["mixed_precision"] = _MIXED_PRECISIONS.get(work.precision.fp8, "bf16_mixed")
    lines = [
        "from megatron.bridge.training.comm_overlap import CommOverlapConfig",
        "",
        *(f"cfg.{name} = {value!r}" for name, value in settings.items()),
        "cfg.comm_overlap = CommOverlapConfig(",
        f"    tp_comm_overlap={work.execution.overlap_tp},",
        f"    overlap_grad_reduce={layout.overlap_grad_reduce},",
        f"    overlap_param_gather={layout.overlap_param_gather},",
        f"    overlap_moe_expert_parallel_comm={layout.overlap_experts},",
        ")",
    ]
    return "\n".join(lines)


def _sizes(work: Workload, chunks: str) -> dict[str, Any]:
    """Return what both programs call alike, by the names of megatron-core's configuration."""
    layout = work.layout
    values: dict[str, Any] = {
        "tensor_model_parallel_size": layout.tp,
        "sequence_parallel": bool(layout.sp),
        "pipeline_model_parallel_size": layout.pp,
        "context_parallel_size": layout.cp,
    }
    if layout.cp > 1:
        values["cp_comm_type"] = layout.context_exchange or "p2p"
    if layout.stage_layers is not None and layout.pp > 1:
        values["pipeline_model_parallel_layout"] = _stages(layout, work.shape)
    elif layout.vpp > 1:
        values[chunks] = layout.vpp
    if layout.ends_count_as_layers:
        values["account_for_embedding_in_pipeline_split"] = True
        values["account_for_loss_in_pipeline_split"] = True
    if any(work.shape.sparse_layers):
        values |= {
            "expert_model_parallel_size": layout.ep,
            # Left out, it would be that of attention.
            "expert_tensor_parallel_size": layout.expert_tp,
            "moe_token_dispatcher_type": layout.dispatcher,
        }
        if layout.dispatcher == "flex":
            values["moe_flex_dispatcher_backend"] = layout.flex_backend
    return values | _recomputation(layout)


def _recomputation(layout: Layout) -> dict[str, Any]:
    if layout.recompute == "none":
        return {}
    if layout.recompute == "selective":
        modules = list(layout.recompute_modules)
        return {"recompute_granularity": "selective", "recompute_modules": modules}
    return {
        "recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1
    }  # fmt: skip


def _stages(layout: Layout, shape: ModelShape) -> str:
    """Return uneven stages in megatron-core's notation: `Et*3|t*3|t*2L`."""
    assert layout.stage_layers is not None
    stages = [f"t*{count}" for count in layout.stage_layers]
    stages[0] = "E" + stages[0]
    stages[-1] += "m" * shape.mtp_layers + "L"
    return "|".join(stages)


def _kept_in_bf16(precision: Precision) -> dict[str, Any]:
    if not (precision.fp8_keep_first or precision.fp8_keep_last):
        return {}
    return {
        "first_last_layers_bf16": True,
        "num_layers_at_start_in_bf16": precision.fp8_keep_first,
        "num_layers_at_end_in_bf16": precision.fp8_keep_last,
    }


def _argument(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    if isinstance(value, list):
        return " ".join([flag, *map(str, value)])
    return f"{flag} '{value}'" if "|" in str(value) else f"{flag} {value}"
