"""megatron-core's optimizer, guarded, and able to be saved where a rank has no parameters."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from megatron.core import optimizer as mcore_optimizer
from megatron.core.optimizer import (
    ChainedOptimizer,
    MegatronOptimizer,
    OptimizerConfig,
    ParamKey,
    ParamPredicate,
    distrib_optimizer,
    get_megatron_optimizer,
)

from moe.config.train import TrainConfig
from moe.training.optimization.adamw import GroupStepAdamW
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision


class StubOptimizer:
    """An optimizer without parameters on this rank, and therefore without state.

    megatron-core keeps its own stub for collective calls, but asks it for steps and state when a
    checkpoint is saved (0.16 to 0.19). It occurs where parameters are frozen, or a pipeline stage
    is dense. What is not defined here is the stub's.
    """

    def __init__(self, stub: MegatronOptimizer) -> None:
        self.stub = stub
        self.optimizer = SimpleNamespace(param_groups=[])

    def sharded_state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Return no state."""
        return {}

    def load_state_dict(self, _: Any) -> None:
        """Load nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stub, name)


class GuardedOptimizer(ChainedOptimizer):  # type: ignore[misc] # megatron-core has no types
    """megatron-core's optimizer, whose gradient norm is checked between gradients and update."""

    def __init__(
        self, optimizers: Sequence[MegatronOptimizer], check_grad_norm: Callable[[float], None]
    ) -> None:
        """Chain optimizers; `check_grad_norm` may raise, which leaves parameters as they are.

        Their state is made here, not by the first update: what is saved before it (a dump of the
        first step, a run whose steps were all rejected) is then as complete as any checkpoint.
        """
        super().__init__(
            [
                StubOptimizer(one) if getattr(one, "is_stub_optimizer", False) else one
                for one in optimizers
            ]
        )
        for one in self.chained_optimizers:
            if not isinstance(one, StubOptimizer):
                one.init_state_fn(one.optimizer, one.config)
        self._check_grad_norm = check_grad_norm

    def set_rates(self, learning_rate: float, weight_decay: float) -> None:
        """Set what the next step takes: each group's rates times the group's multipliers.

        megatron-core's optimizers only carry the multipliers; its own learning rate scheduler,
        which we do not use, applies them. Groups from a checkpoint have the rates of its run.
        """
        for group in self.param_groups:
            group["lr"] = learning_rate * group["lr_mult"]
            group["weight_decay"] = weight_decay * group["wd_mult"]

    def get_grad_norm(self) -> float:
        """Return the global gradient norm before clipping, checked."""
        norm = float(super().get_grad_norm())
        self._check_grad_norm(norm)
        return norm


def build_optimizer(
    train: TrainConfig,
    layout: Layout,
    precision: Precision,
    chunks: list[Any],
    check_grad_norm: Callable[[float], None] = lambda _norm: None,
) -> GuardedOptimizer:
    """Build the optimizer over the model's chunks, which are already wrapped in DDP."""
    if precision.kernels == "torch":
        _use_group_step_adamw()
    config = OptimizerConfig(
        optimizer="adam",
        lr=train.learning_rate,
        weight_decay=train.weight_decay,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_eps=train.adam_epsilon,
        clip_grad=train.clip_grad,
        bf16=precision.dtype == "bf16",
        params_dtype=torch.bfloat16 if precision.dtype == "bf16" else torch.float32,
        use_distributed_optimizer=layout.distributed_optimizer,
    )
    built = get_megatron_optimizer(config, chunks, _not_decayed())
    return GuardedOptimizer(built.chained_optimizers, check_grad_norm)


def _not_decayed() -> dict[ParamKey, dict[str, float]]:
    """Select norms, biases and attention sinks: weight decay is for matrices alone.

    Experts' biases are stacked to more than one dimension, and marked where they are made.
    """
    is_vector = ParamPredicate(name="is_vector", fn=lambda parameter: parameter.dim() <= 1)
    return {ParamKey(attr="is_bias", predicate=is_vector): {"wd_mult": 0.0}}


def _use_group_step_adamw() -> None:
    """Make megatron-core build ours, and treat it as the apex optimizer whose form it has."""
    mcore_optimizer.Adam, mcore_optimizer.USING_PYTORCH_OPTIMIZER = GroupStepAdamW, False
    distrib_optimizer.Adam = GroupStepAdamW
    distrib_optimizer.HAVE_APEX_OR_TE = distrib_optimizer.USING_APEX_OPTIMIZER = True
