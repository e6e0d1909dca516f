"""megatron-core's optimizer, guarded, and able to be saved where a rank has no parameters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from megatron.core.optimizer.optimizer import MixedPrecisionOptimizer

from moe.config.train import TrainConfig
from moe.model.fp8.primary_weights import forget_initial_values
from moe.training.optimization.adamw import GroupStepAdamW
from moe.training.optimization.corrections import correct_optimizers
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
        self,
        optimizers: Sequence[MegatronOptimizer],
        check_grad_norm: Callable[[float], None],
        *,
        is_ours: bool,
    ) -> None:
        """Chain optimizers; `check_grad_norm` may raise, which leaves parameters as they are.

        `is_ours`: they update with `GroupStepAdamW`, not with Transformer Engine's optimizer.

        Their state is made here, not by the first update: what is saved before it (a dump of the
        first step, a run whose steps were all rejected) is then as complete as any checkpoint.
        """
        super().__init__(
            [
                StubOptimizer(one) if getattr(one, "is_stub_optimizer", False) else one
                for one in optimizers
            ]
        )
        self._is_ours = is_ours
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

    def _form(self) -> AbstractContextManager[None]:
        return _group_step_adamw() if self._is_ours else nullcontext()

    def state_dict(self) -> Any:
        """Return the state, as megatron-core does for the optimizer that this one has."""
        with self._form():
            return super().state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        """Load what `state_dict` or a checkpoint gave."""
        with self._form():
            super().load_state_dict(state_dict)

    def sharded_state_dict(self, *args: Any, **values: Any) -> Any:
        """Describe the state as shards, for checkpoints."""
        with self._form():
            return super().sharded_state_dict(*args, **values)

    @torch.no_grad()
    def step_with_ready_grads(self) -> bool:
        """Update masters, and parameters from them.

        Gathering parameters in the gradients' buffer ends the gradients, those of optimizers that
        have not stepped yet, too (megatron-core 0.16): it waits until all have.
        """
        if not self.config.reuse_grad_buf_for_mxfp8_param_ag:
            return bool(super().step_with_ready_grads())
        for one in self.chained_optimizers:
            if not isinstance(one, StubOptimizer):
                MixedPrecisionOptimizer.step_with_ready_grads(one)
        for chunk in self.model_chunks:
            chunk.start_param_sync()
        return True

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
    is_ours = precision.kernels == "torch"
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
        fp8_recipe=precision.megatron_recipe if precision.fp8_parameters else None,
        reuse_grad_buf_for_mxfp8_param_ag=gathers_masters(precision),
    )
    with _group_step_adamw() if is_ours else nullcontext():
        built = get_megatron_optimizer(config, chunks, _not_decayed())
    correct_optimizers(built.chained_optimizers, is_distributed=layout.distributed_optimizer)
    for chunk in chunks:
        forget_initial_values(chunk)
    return GuardedOptimizer(built.chained_optimizers, check_grad_norm, is_ours=is_ours)


def gathers_masters(precision: Precision) -> bool:
    """Whether masters are gathered in BF16 and rounded on every rank: MXFP8's blocks go both ways.

    megatron-core gathers them in the buffer of the gradients.
    """
    return precision.fp8_parameters and precision.fp8 == "mxfp8"


def _not_decayed() -> dict[ParamKey, dict[str, float]]:
    """Select norms, biases and attention sinks: weight decay is for matrices alone.

    Experts' biases are stacked to more than one dimension, and marked where they are made.
    """
    is_vector = ParamPredicate(name="is_vector", fn=lambda parameter: parameter.dim() <= 1)
    return {ParamKey(attr="is_bias", predicate=is_vector): {"wd_mult": 0.0}}


@contextmanager
def _group_step_adamw() -> Iterator[None]:
    """Let megatron-core build ours meanwhile, or treat it as apex's, whose form it has.

    Which optimizer there is, it keeps in its modules: other optimizers of this process have theirs
    again afterwards.
    """
    with (
        _replaced(mcore_optimizer, Adam=GroupStepAdamW, USING_PYTORCH_OPTIMIZER=False),
        _replaced(
            distrib_optimizer,
            Adam=GroupStepAdamW,
            HAVE_APEX_OR_TE=True,
            USING_APEX_OPTIMIZER=True,
            USING_TE_OPTIMIZER=False,
        ),
    ):
        yield


@contextmanager
def _replaced(module: Any, **values: Any) -> Iterator[None]:
    """Give names of a module other values meanwhile; a name that it lacks is an error."""
    before = {name: getattr(module, name) for name in values}
    try:
        vars(module).update(values)
        yield
    finally:
        vars(module).update(before)
