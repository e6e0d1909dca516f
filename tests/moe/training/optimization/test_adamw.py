"""Our AdamW against torch's, and in the form megatron-core expects."""

from copy import deepcopy

import pytest
import torch

from tests.support.distributed import run_ranks

pytestmark = pytest.mark.engine


def _two_groups() -> list[dict[str, object]]:
    chance = torch.Generator().manual_seed(0)
    matrices = [torch.randn(4, 3, generator=chance).requires_grad_() for _ in range(2)]
    vector = torch.randn(5, generator=chance).requires_grad_()
    return [{"params": matrices, "weight_decay": 0.1}, {"params": [vector], "weight_decay": 0.0}]


def _equals_torch() -> None:
    from moe.training.optimization.adamw import GroupStepAdamW

    ours = GroupStepAdamW(_two_groups(), lr=3e-2, betas=(0.9, 0.95), eps=1e-6)
    theirs = torch.optim.AdamW(_two_groups(), lr=3e-2, betas=(0.9, 0.95), eps=1e-6)
    chance = torch.Generator().manual_seed(1)
    for _ in range(7):
        for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            for p, q in zip(mine["params"], other["params"], strict=True):
                p.grad = torch.randn(p.shape, generator=chance)
                q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert mine["step"] == 7
        for p, q in zip(mine["params"], other["params"], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
            assert "step" not in ours.state[p]


def test_equals_torch_adamw() -> None:
    run_ranks(1, _equals_torch)


def _without_gradient() -> None:
    from moe.training.optimization.adamw import GroupStepAdamW

    parameter = torch.ones(3, requires_grad=True)
    optimizer = GroupStepAdamW([parameter], lr=1.0, weight_decay=0.5)
    optimizer.step()
    assert parameter.tolist() == [1.0, 1.0, 1.0]
    assert not optimizer.state[parameter]


def test_parameters_without_gradient_stay() -> None:
    run_ranks(1, _without_gradient)


def _saved_and_resumed() -> None:
    from moe.training.optimization.adamw import GroupStepAdamW

    parameter = torch.ones(3, requires_grad=True)
    optimizer = GroupStepAdamW([parameter], lr=0.1)
    for _ in range(3):
        parameter.grad = torch.ones(3)
        optimizer.step()
    twin = parameter.detach().clone().requires_grad_()
    resumed = GroupStepAdamW([twin], lr=0.1)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for p, one in ((parameter, optimizer), (twin, resumed)):
        p.grad = torch.full((3,), 0.5)
        one.step()
    assert torch.equal(parameter, twin)


def test_step_count_survives_state_dict() -> None:
    run_ranks(1, _saved_and_resumed)
