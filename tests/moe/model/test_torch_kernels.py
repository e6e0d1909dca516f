"""Kernel set `torch` against slow references written out."""

import os
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.distributed import run_ranks

pytestmark = pytest.mark.engine

SEQ, BATCH, HEADS, KV_HEADS, DIM = 16, 2, 4, 2, 8


def _started(**layout: Any) -> Any:
    from parallel.engine.start import start_engine
    from parallel.layout.layout import Layout

    return start_engine(Layout(device="cpu", **layout), seed=0)


def _config(**values: Any) -> Any:
    from megatron.core.transformer.transformer_config import TransformerConfig

    return TransformerConfig(
        num_layers=1, hidden_size=HEADS * DIM, num_attention_heads=HEADS,
        num_query_groups=KV_HEADS, **values,
    )  # fmt: skip


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _experts_against_loop(counts: list[int]) -> dict[str, float]:
    """Return the largest difference of output and gradients from a loop over experts."""
    from megatron.core.process_groups_config import ProcessGroupCollection

    from moe.model.experts import GroupedExperts

    _started()
    width, inner = HEADS * DIM, 12
    config = _config(moe_ffn_hidden_size=inner, num_moe_experts=len(counts), add_bias_linear=False,
                     gated_linear_unit=True)  # fmt: skip
    groups = ProcessGroupCollection.use_mpu_process_groups(["expt_tp", "expt_dp", "ep"])
    experts = GroupedExperts(len(counts), config, groups)
    torch.nn.init.normal_(experts.gate_up)
    torch.nn.init.normal_(experts.down)
    total = sum(counts)
    tokens = _random(total, width, seed=1).requires_grad_()
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
    upstream = _random(total, width, seed=3)
    names = ("tokens", "probs", "gate_up", "down")
    fast_gradients = torch.autograd.grad(output, inputs, upstream)
    slow_gradients = torch.autograd.grad(slow, inputs, upstream, allow_unused=True)
    differences = {"output": _worst(output, slow)}
    for name, fast, reference in zip(names, fast_gradients, slow_gradients, strict=True):
        expected = torch.zeros_like(fast) if reference is None else reference
        differences[name] = _worst(fast, expected)
    return differences


def _worst(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0)) if one.numel() else 0


@pytest.mark.parametrize("counts", [[3, 5, 1], [0, 7, 2], [4, 0, 0]])
def test_grouped_experts_equal_a_loop(counts: list[int]) -> None:
    differences = run_ranks(1, _experts_against_loop, counts)[0]
    assert max(differences.values()) < 1e-5, differences


def _experts_without_tokens() -> dict[str, tuple[int, float]]:
    from megatron.core.process_groups_config import ProcessGroupCollection

    from moe.model.experts import GroupedExperts

    _started()
    config = _config(moe_ffn_hidden_size=4, num_moe_experts=2, add_bias_linear=False)
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


def _rms_norm() -> float:
    from moe.model.norm import RMSNorm

    _started()
    norm = RMSNorm(_config(), 24, eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    x = _random(5, 24, seed=4)
    by_hand = x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-3) * norm.weight
    return _worst(norm(x), by_hand)


def test_rms_norm_by_hand() -> None:
    assert run_ranks(1, _rms_norm)[0] < 1e-6


def _full_norm(kind: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Normalize this rank's heads; returns output, input gradient and weight gradient."""
    from moe.model import norm as norms

    engine = _started(tp=_world_size())
    norm = getattr(norms, kind)(_config(), DIM, eps=1e-5)
    heads = norm.num_heads
    norm.weight.data.copy_(_random(heads * DIM, seed=5))
    share = heads // engine.world_size
    mine = slice(engine.rank * share, (engine.rank + 1) * share)
    x = _random(SEQ, BATCH, heads, DIM, seed=6)[:, :, mine].clone().requires_grad_()
    output = norm(x)
    output.backward(_random(SEQ, BATCH, heads, DIM, seed=7)[:, :, mine])
    assert x.grad is not None and norm.weight.grad is not None
    return output.detach().numpy(), x.grad.numpy(), norm.weight.grad.numpy()


def _world_size() -> int:
    return int(os.environ["WORLD_SIZE"])


@pytest.mark.parametrize(("kind", "heads"), [("FullQkNorm", HEADS), ("FullKeyNorm", KV_HEADS)])
def test_full_qk_norm_under_tensor_parallelism(kind: str, heads: int) -> None:
    x = _random(SEQ, BATCH, heads, DIM, seed=6).requires_grad_()
    weight = _random(heads * DIM, seed=5).requires_grad_()
    flat = x.flatten(-2)
    expected = flat / torch.sqrt((flat * flat).mean(-1, keepdim=True) + 1e-5) * weight
    upstream = _random(SEQ, BATCH, heads, DIM, seed=7).flatten(-2)
    grad_input, grad_weight = torch.autograd.grad(expected, [x, weight], upstream)
    ranks = run_ranks(2, _full_norm, kind)
    outputs, gradients, weight_gradients = zip(*ranks, strict=True)
    close = {"rtol": 1e-4, "atol": 1e-5}
    whole = np.concatenate(outputs, axis=2).reshape(SEQ, BATCH, -1)
    np.testing.assert_allclose(whole, expected.detach().numpy(), **close)
    np.testing.assert_allclose(np.concatenate(gradients, axis=2), grad_input.numpy(), **close)
    np.testing.assert_allclose(sum(weight_gradients), grad_weight.numpy(), **close)


def _attention() -> list[NDArray[Any]]:
    """Attend over this rank's part of the sequence; returns output, gradients of q, k, v."""
    from megatron.core.transformer.enums import AttnMaskType

    from moe.model.attention import Attention
    from moe.model.context_parallel import sequence_positions

    engine = _started(cp=_world_size())
    attention = Attention(_config(), 1, AttnMaskType.causal)
    mine = sequence_positions(engine.world_size, SEQ // engine.world_size)[engine.rank]
    parts = [x[mine].clone().requires_grad_() for x in _qkv()]
    output = attention(*parts, None)
    output.backward(_random(SEQ, BATCH, HEADS * DIM, seed=11)[mine])
    gradients = [part.grad for part in parts if part.grad is not None]
    return [x.numpy() for x in (mine, output.detach(), *gradients)]


def _qkv() -> list[Tensor]:
    return [
        _random(SEQ, BATCH, heads, DIM, seed=8 + i)
        for i, heads in enumerate((HEADS, KV_HEADS, KV_HEADS))
    ]


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_attention_under_context_parallelism(num_ranks: int) -> None:
    query, key, value = (x.requires_grad_() for x in _qkv())
    repeated = [x.repeat_interleave(HEADS // KV_HEADS, dim=2) for x in (key, value)]
    scores = torch.einsum("sbnd,tbnd->bnst", query, repeated[0]) / DIM**0.5
    visible = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    expected = torch.einsum("bnst,tbnd->sbnd", weights, repeated[1]).flatten(2)
    upstream = _random(SEQ, BATCH, HEADS * DIM, seed=11)
    gradients = torch.autograd.grad(expected, [query, key, value], upstream)
    whole = [expected.detach(), *gradients]
    for mine, *parts in run_ranks(num_ranks, _attention):
        for part, reference in zip(parts, whole, strict=True):
            np.testing.assert_allclose(part, reference[mine].numpy(), rtol=1e-4, atol=1e-5)
