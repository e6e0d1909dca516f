"""What programs of published steps keep in memory where their public recipes say so.

Rows print layouts, not optimizers. Programs that are not named here are taken to keep what
`moe train` does.
"""

from dataclasses import dataclass, replace

from parallel.planner.software import MEGATRON, OUR_STATE, Software, StateBytes
from parallel.planner.validation.rows import PublishedRow
from parallel.planner.workload import Workload

BRIDGE = "Megatron-Bridge"
"""Paths below are of NVIDIA-NeMo/Megatron-Bridge@067f987d, in `src/megatron/bridge/`."""
MLPERF = "NeMo (MLPerf v"
"""MLCommons' training_results, NVIDIA/benchmarks/: gpt3/ (v4.0) has `grad_sync_dtype: bf16` in
conf/optim/distributed_fused_adam.yaml, the dtype of apex's gradient buffers; llama31_405b/ (v5.0)
`grad_reduce_in_fp32=False` in pretrain.py; config_common.sh (v4.1, v5.0) `FP8_PARAMS=True`."""
NEMO_2024 = "NeMo 24.07"
"""`grad_sync_dtype=bf16` in NVIDIA/NeMo-Framework-Launcher, examples/training/gpt/h100/."""
BF16_GRADIENTS = StateBytes(gradient=2)
"""Of Megatron-Bridge: `_benchmark_common` in perf_recipes/_common.py."""
PRECISION_AWARE = StateBytes(gradient=2, master=2, moments=4)
"""BF16 gradients and moments; of masters the 16 bits that BF16 lacks, megatron-core's default."""
PRECISION_AWARE_MODELS = ("deepseek-v3", "moonlight-16b-a3b")
"""recipes/deepseek/h100/deepseek_v3.py, recipes/moonlight/h100/moonlight_16b.py."""
FP8_PARAMETER_RECIPES = ("delayed", "current", "mxfp8")
"""`fp8_param_gather` in training/mixed_precision.py; not with blockwise scaling."""
FREE_ROUTING_MODELS = ("moonlight-16b-a3b",)
"""Its recipe has `moe_router_force_load_balancing = False`; those of perf_recipes/ force it."""
UNTRANSPOSED_TASKS = ("sft", "lora")
"""`disable_parameter_transpose_cache` in perf_recipes/llama/h100/llama3.py."""


@dataclass(frozen=True)
class Recipe:
    """What a program keeps, and how its routers choose."""

    state: StateBytes = OUR_STATE
    software: Software = MEGATRON
    keeps_fp8_parameters: bool = False
    routes_freely: bool = False

    def applied_to(self, work: Workload) -> Workload:
        """Return a job with the parameters that the program keeps, and its routing."""
        precision, execution = work.precision, work.execution
        if self.keeps_fp8_parameters and precision.fp8 in FP8_PARAMETER_RECIPES:
            precision = precision.model_copy(update={"fp8_parameters": True})
        if self.routes_freely:
            execution = replace(execution, routing="natural")
        return replace(work, precision=precision, execution=execution)


def recipe_of(row: PublishedRow) -> Recipe:
    """Return what the program of a row keeps; of the row, only what names the program is read."""
    framework = row.text("framework") or ""
    if framework.startswith((MLPERF, NEMO_2024)):
        is_mlperf = framework.startswith(MLPERF)
        return Recipe(state=BF16_GRADIENTS, keeps_fp8_parameters=is_mlperf)
    if not framework.startswith(BRIDGE):
        return Recipe()
    model = row.text("model")
    untransposed = row.text("task") in UNTRANSPOSED_TASKS
    return Recipe(
        state=PRECISION_AWARE if model in PRECISION_AWARE_MODELS else BF16_GRADIENTS,
        software=replace(MEGATRON, fp8_transposes=not untransposed),
        keeps_fp8_parameters=True,
        routes_freely=model in FREE_ROUTING_MODELS,
    )
