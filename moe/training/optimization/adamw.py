"""AdamW for every device, in the form megatron-core expects of apex's and TE's FusedAdam."""

from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any

import torch


class GroupStepAdamW(torch.optim.AdamW):
    """AdamW (arXiv:1711.05101) with one step count per group, updated by torch's kernel.

    torch's own AdamW has a step count per parameter; megatron-core's reshardable checkpoints look
    for it in the parameter group, where apex and Transformer Engine have it.
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

    # torch wraps these only to keep its compiler out of them, for which it loads the compiler at
    # the first call: 0.5 seconds of CPU time at each start. Nothing compiles this optimizer.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load a state that has no step count per parameter."""
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
