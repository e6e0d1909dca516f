"""Attention of kernel set `torch` against its formula, under context parallelism."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

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
)

pytestmark = pytest.mark.engine


def _attention() -> list[NDArray[Any]]:
    """Attend over this rank's part of the sequence; returns output, gradients of q, k, v."""
    from megatron.core.transformer.enums import AttnMaskType

    from moe.model.attention import Attention
    from moe.model.context_parallel import sequence_positions

    engine = start_on_cpu(cp=world_size())
    attention = Attention(layer_config(), 1, AttnMaskType.causal)
    mine = sequence_positions(engine.world_size, SEQ // engine.world_size)[engine.rank]
    parts = [x[mine].clone().requires_grad_() for x in _qkv()]
    output = attention(*parts, None)
    output.backward(random_tensor(SEQ, BATCH, HEADS * DIM, seed=11)[mine])
    gradients = [part.grad for part in parts if part.grad is not None]
    return [x.numpy() for x in (mine, output.detach(), *gradients)]


def _qkv() -> list[Tensor]:
    return [
        random_tensor(SEQ, BATCH, heads, DIM, seed=8 + i)
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
    upstream = random_tensor(SEQ, BATCH, HEADS * DIM, seed=11)
    gradients = torch.autograd.grad(expected, [query, key, value], upstream)
    whole = [expected.detach(), *gradients]
    for mine, *parts in run_ranks(num_ranks, _attention):
        for part, reference in zip(parts, whole, strict=True):
            np.testing.assert_allclose(part, reference[mine].numpy(), rtol=1e-4, atol=1e-5)
