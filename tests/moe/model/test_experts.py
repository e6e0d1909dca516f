"""Grouped experts of kernel set `torch` against a loop over experts and tokens."""

import pytest
import torch

from tests.support.distributed import run_ranks
from tests.support.kernel_inputs import (
    DIM,
    HEADS,
    layer_config,
    random_tensor,
    start_on_cpu,
    worst_difference,
)

pytestmark = pytest.mark.engine


def _experts_against_loop(counts: list[int], inner: int) -> dict[str, float]:
    """Return the largest difference of output and gradients from a loop over experts."""
    from megatron.core.process_groups_config import ProcessGroupCollection

    from moe.model.experts import GroupedExperts

    start_on_cpu()
    width = HEADS * DIM
    config = layer_config(
        moe_ffn_hidden_size=inner,
        num_moe_experts=len(counts),
        add_bias_linear=False,
        gated_linear_unit=True,
    )
    groups = ProcessGroupCollection.use_mpu_process_groups(["expt_tp", "expt_dp", "ep"])
    experts = GroupedExperts(len(counts), config, groups)
    torch.nn.init.normal_(experts.gate_up)
    torch.nn.init.normal_(experts.down)
    total = sum(counts)
    tokens = random_tensor(total, width, seed=1).requires_grad_()
    probs = torch.rand(total, generator=torch.Generator().manual_seed(2)).requires_grad_()
    inputs = [tokens, probs, experts.gate_up, experts.down]
    output, _bias = experts(tokens, torch.tensor(counts), probs)
    slow, first = torch.zeros(total, width), 0
    for expert, count in enumerate(counts):
        for token in range(first, first + count):
            gate = experts.gate_up[expert, 0] @ tokens[token]
            up = experts.gate_up[expert, 1] @ tokens[token]
            hidden = gate * torch.sigmoid(gate) * up
            slow[token] = probs[token] * (experts.down[expert] @ hidden)
        first += count
    upstream = random_tensor(total, width, seed=3)
    names = ("tokens", "probs", "gate_up", "down")
    fast_gradients = torch.autograd.grad(output, inputs, upstream)
    slow_gradients = torch.autograd.grad(slow, inputs, upstream, allow_unused=True)
    differences = {"output": worst_difference(output, slow)}
    for name, fast, reference in zip(names, fast_gradients, slow_gradients, strict=True):
        expected = torch.zeros_like(fast) if reference is None else reference
        differences[name] = worst_difference(fast, expected)
    return differences


@pytest.mark.parametrize("counts", [[3, 5, 1], [0, 7, 2], [4, 0, 0]])
def test_grouped_experts_equal_a_loop(counts: list[int]) -> None:
    differences = run_ranks(1, _experts_against_loop, counts, 12)[0]
    assert max(differences.values()) < 1e-5, differences


def test_sizes_that_are_no_multiple_of_16_bytes_are_padded() -> None:
    differences = run_ranks(1, _experts_against_loop, [3, 0, 4], 9)[0]
    assert max(differences.values()) < 1e-5, differences


def _experts_without_tokens() -> dict[str, tuple[int, float]]:
    from megatron.core.process_groups_config import ProcessGroupCollection

    from moe.model.experts import GroupedExperts

    start_on_cpu()
    config = layer_config(moe_ffn_hidden_size=4, num_moe_experts=2, add_bias_linear=False)
    groups = ProcessGroupCollection.use_mpu_process_groups(["expt_tp", "expt_dp", "ep"])
    experts = GroupedExperts(2, config, groups)
    torch.nn.init.normal_(experts.gate_up)
    torch.nn.init.normal_(experts.down)
    tokens = torch.zeros(0, HEADS * DIM, requires_grad=True)
    output, _ = experts(tokens, torch.zeros(2, dtype=torch.int64), torch.zeros(0))
    output.sum().backward()
    return {
        name: (weight.grad.numel(), float(weight.grad.abs().max()))
        for name, weight in experts.named_parameters()
    }


def test_experts_without_tokens_get_zero_gradients() -> None:
    gradients = run_ranks(1, _experts_without_tokens)[0]
    assert set(gradients) == {"gate_up", "down"}
    assert all(size > 0 and largest == 0.0 for size, largest in gradients.values())
