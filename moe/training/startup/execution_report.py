"""What really executes, read from the built model and optimizer, and compared with the request."""

from collections.abc import Callable, Iterator
from importlib import util
from typing import Any

import torch

from moe.config.experiment import Experiment
from moe.errors import ExecutionError
from moe.model.fp8.primary_weights import count_fp8_weights
from moe.training.optimization.optimizer import StubOptimizer
from moe.training.trainer import Trainer

_DISPATCHERS = {
    "allgather": "MoEAllGatherTokenDispatcher",
    "alltoall": "MoEAlltoAllTokenDispatcher",
    "flex": "MoEFlexTokenDispatcher",
}
_KERNELS = {"moe.": "torch", "megatron.": "te"}


def execution_report(trainer: Trainer) -> dict[str, Any]:
    """Return kernels, dispatcher, precision, overlap, recomputation and optimizer in use."""
    chunks = [chunk.module for chunk in trainer.chunks]
    modules = [module for chunk in chunks for module in chunk.modules()]
    attention = type(next(m.core_attention for m in modules if hasattr(m, "core_attention")))
    # Transformer Engine's projections hold the norm before them.
    norms = [m for m in modules if type(m).__name__.endswith("Norm")]
    norm = type(next(iter(norms or [m for m in modules if hasattr(m, "layer_norm_weight")])))
    moe = next((m for m in modules if hasattr(m, "token_dispatcher")), None)
    config, ddp = chunks[0].config, trainer.chunks[0].ddp_config
    optimizer = _optimizer_with_parameters(trainer)
    return {
        "kernels": next(k for p, k in _KERNELS.items() if attention.__module__.startswith(p)),
        "attention": _path(attention),
        "norm": _path(norm),
        "experts": None if moe is None else _path(type(moe.experts)),
        "dispatcher": None if moe is None else _path(type(moe.token_dispatcher)),
        "flex_backend": _flex_backend(moe),
        "optimizer": _path(type(optimizer.optimizer)),
        "optimizer_is_distributed": _is_distributed(optimizer),
        "dtype": str(next(trainer.chunks[0].parameters()).dtype).removeprefix("torch."),
        "fp8": _fp8(trainer, config),
        "recompute": config.recompute_granularity or "none",
        "recompute_modules": config.recompute_modules if config.recompute_granularity else None,
        "overlap_grad_reduce": ddp.overlap_grad_reduce,
        "overlap_param_gather": ddp.overlap_param_gather,
        "overlap_experts": config.overlap_moe_expert_parallel_comm,
        "apex": apex_features(),
        "device": trainer.engine.device.type,
    }


def verify_execution(experiment: Experiment, report: dict[str, Any]) -> None:
    """Compare what was built with what was requested.

    Raises:
        ExecutionError: They differ: names key, request and what was built.
    """
    for key, requested, built in _expectations(experiment, report):
        if requested != built:
            raise ExecutionError(
                f"{key}: asked for {requested!r}, but the built model has {built!r}: this is a"
                " fault of moescale or its engine; nothing was trained"
            )


def _expectations(experiment: Experiment, report: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    layout, precision = experiment.parallel, experiment.precision
    yield "precision.kernels", precision.kernels, report["kernels"]
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision.dtype]
    yield "precision.dtype", dtype, report["dtype"]
    requested = None if precision.scaling is None else precision.fp8
    yield "precision.fp8", requested, report["fp8"] and report["fp8"]["recipe"]
    if report["fp8"] and not (precision.fp8_keep_first or precision.fp8_keep_last):
        yield "precision.fp8_parameters", precision.fp8_parameters, report["fp8"]["weights"] > 0
    if experiment.model.moe is not None and report["dispatcher"] is not None:
        name = report["dispatcher"].rpartition(".")[2]
        yield "parallel.dispatcher", _DISPATCHERS[layout.dispatcher], name
    yield "parallel.recompute", layout.recompute, report["recompute"]
    for key in ("overlap_grad_reduce", "overlap_param_gather", "overlap_experts"):
        yield f"parallel.{key}", getattr(layout, key), report[key]
    is_distributed = report["optimizer_is_distributed"]
    yield "parallel.distributed_optimizer", layout.distributed_optimizer, is_distributed


def _optimizer_with_parameters(trainer: Trainer) -> Any:
    """Return this rank's first optimizer with parameters, or a stub where there is none."""
    chained = trainer.optimizer.chained_optimizers
    return next((one for one in chained if not isinstance(one, StubOptimizer)), chained[0])


def _is_distributed(optimizer: Any) -> bool:
    kind = type(optimizer.stub if isinstance(optimizer, StubOptimizer) else optimizer)
    return kind.__name__ == "DistributedOptimizer"


def _fp8(trainer: Trainer, config: Any) -> dict[str, Any] | None:
    """Return recipe, formats and how many matmuls of this rank run, or weights are kept, in FP8."""
    if trainer.fp8 is not None:
        scaling, formats = trainer.fp8.scaling, trainer.fp8.formats
        count = trainer.fp8.num_matmuls
        return {
            "recipe": "emulated",
            "scaling": scaling,
            "formats": formats,
            "products": count,
            "weights": 0,
        }
    if config.fp8 is None:
        return None
    recipe = "current" if config.fp8_recipe == "tensorwise" else str(config.fp8_recipe)
    weights = count_fp8_weights(trainer.chunks)
    return {
        "recipe": recipe,
        "scaling": recipe,
        "formats": config.fp8,
        "products": None,
        "weights": weights,
    }


def _flex_backend(moe: Any) -> str | None:
    manager = getattr(getattr(moe, "token_dispatcher", None), "_comm_manager", None)
    return None if manager is None else type(manager).__name__


def apex_features() -> dict[str, bool]:
    """Return which parts of NVIDIA's apex are installed: `apex` on PyPI is another project."""
    return {
        "fused_adam": _has(lambda: __import__("apex.optimizers").optimizers.FusedAdam),
        "fused_norm": _has(lambda: __import__("apex.normalization").normalization.FusedRMSNorm),
        "amp_C": util.find_spec("amp_C") is not None and torch.cuda.is_available(),
    }


def _has(look: Callable[[], Any]) -> bool:
    try:
        look()
    except (ImportError, AttributeError):
        return False
    return True


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
