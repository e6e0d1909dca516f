"""AdamW for every device, in the form megatron-core expects of apex's and TE's FusedAdam."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from megatron.core import optimizer as mcore_optimizer
from megatron.core.optimizer import (
    MegatronOptimizer,
    OptimizerConfig,
    distrib_optimizer,
    get_megatron_optimizer,
)

from moe.config.train import TrainConfig
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision


class GroupStepAdamW(torch.optim.AdamW):
    """AdamW (arXiv:1711.05101) whose step count is kept once a group, updated by torch's kernel.

    torch's own AdamW keeps a step per parameter; megatron-core's reshardable checkpoints look
    for it in the parameter group, where apex and Transformer Engine keep it.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **_: Any,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state without looking for torch's step of each parameter."""
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            group["step"] = int(group.get("step", 0)) + 1
            if params:
                self._update(group, params)

    def _update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        beta1, beta2 = group["betas"]
        step = torch.tensor(float(group["step"]), device=params[0].device)
        torch._fused_adamw_(
            params,
            [p.grad for p in params if p.grad is not None],
            [self.state[p]["exp_avg"] for p in params],
            [self.state[p]["exp_avg_sq"] for p in params],
            [],
            [step] * len(params),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def build_optimizer(
    train: TrainConfig, layout: Layout, precision: Precision, chunks: list[Any]
) -> MegatronOptimizer:
    """Build megatron-core's optimizer over the model's chunks (already wrapped in DDP)."""
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
    optimizer = get_megatron_optimizer(config, chunks)
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if getattr(part, "is_stub_optimizer", False):
            _let_stub_be_saved(part)
    return optimizer


def _let_stub_be_saved(stub: Any) -> None:
    """Let an optimizer that has no parameter on this rank have no state either.

    megatron-core keeps it for collective calls, but asks it for steps and state when a checkpoint
    is saved (0.16 to 0.19). It occurs where parameters are frozen, or a pipeline stage is dense.
    """
    stub.optimizer = SimpleNamespace(param_groups=[])
    stub.sharded_state_dict = lambda *_, **__: {}
    stub.load_state_dict = lambda *_, **__: None


def _use_group_step_adamw() -> None:
    """Let megatron-core build ours, and treat it as the apex optimizer whose form it has."""
    mcore_optimizer.Adam, mcore_optimizer.USING_PYTORCH_OPTIMIZER = GroupStepAdamW, False
    distrib_optimizer.Adam = GroupStepAdamW
    distrib_optimizer.HAVE_APEX_OR_TE = distrib_optimizer.USING_APEX_OPTIMIZER = True
