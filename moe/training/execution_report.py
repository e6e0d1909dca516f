"""What really runs, read from the built model and optimizer, held against what was asked for."""

from collections.abc import Callable, Iterator
from importlib import util
from typing import Any

import torch

from moe.config.experiment import Experiment
from moe.errors import ExecutionError
from moe.training.trainer import Trainer

_DISPATCHERS = {
    "allgather": "MoEAllGatherTokenDispatcher",
    "alltoall": "MoEAlltoAllTokenDispatcher",
    "flex": "MoEFlexTokenDispatcher",
}
_OUTER = ("SelfAttention", "MLASelfAttention", "LatentAttention")
"""Attention with its projections; what computes is inside."""
_KERNELS = {"moe.": "torch", "megatron.": "te"}


def execution(trainer: Trainer) -> dict[str, Any]:
    """Return kernels, dispatcher, precision, overlap, recomputation and optimizer in use."""
    chunks = [chunk.module for chunk in trainer.chunks]
    modules = [module for chunk in chunks for module in chunk.modules()]
    inner = (m for m in map(type, modules) if m.__name__ not in _OUTER)
    attention = next(m for m in inner if m.__name__.endswith("Attention"))
    norm = next(m for m in map(type, modules) if m.__name__.endswith("Norm"))
    moe = next((m for m in modules if hasattr(m, "token_dispatcher")), None)
    config, ddp = chunks[0].config, trainer.chunks[0].ddp_config
    optimizers = getattr(trainer.optimizer, "chained_optimizers", [trainer.optimizer])
    return {
        "kernels": next(k for p, k in _KERNELS.items() if attention.__module__.startswith(p)),
        "attention": _path(attention),
        "norm": _path(norm),
        "experts": None if moe is None else _path(type(moe.experts)),
        "dispatcher": None if moe is None else _path(type(moe.token_dispatcher)),
        "flex_backend": _flex_backend(moe),
        "optimizer": _path(type(optimizers[0].optimizer)),
        "optimizer_is_distributed": type(optimizers[0]).__name__ == "DistributedOptimizer",
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


def check_execution(experiment: Experiment, found: dict[str, Any]) -> None:
    """Compare what was built with what was asked for.

    Raises:
        ExecutionError: They differ: names key, asked and built.
    """
    for key, asked, built in _claims(experiment, found):
        if asked != built:
            raise ExecutionError(
                f"{key}: asked for {asked!r}, but the built model has {built!r}: this is a fault of"
                " moescale or its engine; nothing was trained"
            )


def _claims(experiment: Experiment, found: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    layout, precision = experiment.parallel, experiment.precision
    yield "precision.kernels", precision.kernels, found["kernels"]
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision.dtype]
    if not precision.fp8_parameters:
        yield "precision.dtype", dtype, found["dtype"]
    asked = None if precision.scaling is None else precision.fp8
    yield "precision.fp8", asked, found["fp8"] and found["fp8"]["recipe"]
    if experiment.model.moe is not None and found["dispatcher"] is not None:
        name = found["dispatcher"].rpartition(".")[2]
        yield "parallel.dispatcher", _DISPATCHERS[layout.dispatcher], name
    yield "parallel.recompute", layout.recompute, found["recompute"]
    for key in ("overlap_grad_reduce", "overlap_param_gather", "overlap_experts"):
        yield f"parallel.{key}", getattr(layout, key), found[key]
    is_distributed = found["optimizer_is_distributed"]
    yield "parallel.distributed_optimizer", layout.distributed_optimizer, is_distributed


def _fp8(trainer: Trainer, config: Any) -> dict[str, Any] | None:
    """Return recipe, formats and how many products of this rank run in FP8."""
    if trainer.fp8 is not None:
        scaling, formats = trainer.fp8.scaling, trainer.fp8.formats
        count = trainer.fp8.num_matmuls
        return {"recipe": "emulated", "scaling": scaling, "formats": formats, "products": count}
    if config.fp8 is None:
        return None
    recipe = "current" if config.fp8_recipe == "tensorwise" else str(config.fp8_recipe)
    return {"recipe": recipe, "scaling": recipe, "formats": config.fp8, "products": None}


def _flex_backend(moe: Any) -> str | None:
    manager = getattr(getattr(moe, "token_dispatcher", None), "_comm_manager", None)
    return None if manager is None else type(manager).__name__


def apex_features() -> dict[str, bool]:
    """Say which parts of NVIDIA's apex are here: the `apex` on PyPI is another project."""
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
