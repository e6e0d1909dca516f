"""Norms of kernel set `torch` against their formula, alone and under tensor parallelism."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.distributed import run_ranks
from tests.support.kernel_inputs import (
    BATCH,
    DIM,
    HEADS,
    KV_HEADS,
    SEQ,
    layer_config,
    random_tensor,
    start_on_cpu,
    world_size,
    worst_difference,
)

pytestmark = pytest.mark.engine


def _rms_norm() -> float:
    from moe.model.norm import RMSNorm

    start_on_cpu()
    norm = RMSNorm(layer_config(), 24, eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    x = random_tensor(5, 24, seed=4)
    by_hand = x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-3) * norm.weight
    return worst_difference(norm(x), by_hand)


def test_rms_norm_by_hand() -> None:
    assert run_ranks(1, _rms_norm)[0] < 1e-6


def _full_norm(kind: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Normalize this rank's heads; returns output, input gradient and weight gradient."""
    from moe.model import norm as norms

    engine = start_on_cpu(tp=world_size())
    norm = getattr(norms, kind)(layer_config(), DIM, eps=1e-5)
    heads = norm.num_heads
    norm.weight.data.copy_(random_tensor(heads * DIM, seed=5))
    share = heads // engine.world_size
    mine = slice(engine.rank * share, (engine.rank + 1) * share)
    x = random_tensor(SEQ, BATCH, heads, DIM, seed=6)[:, :, mine].clone().requires_grad_()
    output = norm(x)
    output.backward(random_tensor(SEQ, BATCH, heads, DIM, seed=7)[:, :, mine])
    assert x.grad is not None and norm.weight.grad is not None
    return output.detach().numpy(), x.grad.numpy(), norm.weight.grad.numpy()


@pytest.mark.parametrize(("kind", "heads"), [("FullQkNorm", HEADS), ("FullKeyNorm", KV_HEADS)])
def test_full_qk_norm_under_tensor_parallelism(kind: str, heads: int) -> None:
    x = random_tensor(SEQ, BATCH, heads, DIM, seed=6).requires_grad_()
    weight = random_tensor(heads * DIM, seed=5).requires_grad_()
    flat = x.flatten(-2)
    expected = flat / torch.sqrt((flat * flat).mean(-1, keepdim=True) + 1e-5) * weight
    upstream = random_tensor(SEQ, BATCH, heads, DIM, seed=7).flatten(-2)
    grad_input, grad_weight = torch.autograd.grad(expected, [x, weight], upstream)
    ranks = run_ranks(2, _full_norm, kind)
    outputs, gradients, weight_gradients = zip(*ranks, strict=True)
    close = {"rtol": 1e-4, "atol": 1e-5}
    whole = np.concatenate(outputs, axis=2).reshape(SEQ, BATCH, -1)
    np.testing.assert_allclose(whole, expected.detach().numpy(), **close)
    np.testing.assert_allclose(np.concatenate(gradients, axis=2), grad_input.numpy(), **close)
    np.testing.assert_allclose(sum(weight_gradients), grad_weight.numpy(), **close)
