"""The floor of a step: which products, which bytes, and what is told of each part."""

from collections import defaultdict
from itertools import pairwise

import pytest
import torch

from benchmarks.bench.floor import parts
from benchmarks.bench.floor.kernels import Pool, product_passes
from benchmarks.bench.floor.meter import rate_at
from benchmarks.bench.floor.products import StepSize, step_attention, step_products
from benchmarks.bench.floor.traffic import step_traffic
from benchmarks.bench.gemm_shapes import Gemm
from moe.config.experiment import load_model
from moe.config.model import ModelConfig
from moe.config.presets.catalog import preset_names
from moe.cost.ledger import ledger

CPU = torch.device("cpu")
T, H, V, B = 8, 32, 64, 4
"""Tokens, hidden size, vocabulary, bytes of an element."""
SIZE = StepSize(seq_len=4, micro_batch_size=2, micro_batches=1)
SPARSE = {
    "num_layers": 2,
    "hidden_size": H,
    "num_heads": 4,
    "num_kv_heads": 2,
    "vocab_size": V,
    "max_seq_len": 16,
    "moe": {"num_experts": 4, "top_k": 2, "expert_ffn_hidden_size": 16},
}


def sparse_model(**changes: object) -> ModelConfig:
    return ModelConfig.model_validate(SPARSE | changes)


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_flops_are_the_ledgers(name: str, micro_batches: int) -> None:
    """But for routers, which the convention leaves out, and the shared experts' gate."""
    model = load_model(name)
    size = StepSize(seq_len=512, micro_batch_size=2, micro_batches=micro_batches)
    products = step_products(model, size, {})
    routers = sum(one.flops for one in products if one.gemm.role == "router")
    counted = sum(one.flops for one in [*products, *step_attention(model, size)]) - routers
    per_token = ledger(model, size.seq_len).training_flops_per_token
    step_tokens = size.tokens * micro_batches
    assert counted == pytest.approx(step_tokens * per_token, rel=1e-6)
    assert (routers > 0) == (model.moe is not None)


def test_experts_multiply_the_rows_that_were_routed() -> None:
    loads = {0: [(16, 0, 0, 0)], 1: [(4, 4, 5, 3)]}
    products = step_products(sparse_model(), SIZE, loads)
    groups = {one.gemm.group_rows: one.calls for one in products if one.gemm.role == "experts up"}
    assert groups == {(16, 0, 0, 0): 1, (4, 4, 5, 3): 1}
    even = step_products(sparse_model(), SIZE, {})
    assert sum(one.flops for one in products) == sum(one.flops for one in even)


def grown_pool(gemm: Gemm) -> Pool:
    """Return a pool whose buffers are large enough: a larger request would replace them."""
    pool = Pool(CPU)
    product_passes(gemm, torch.float32, pool)
    return pool


@pytest.mark.parametrize("rows", [(5, 0, 11), None])
def test_every_kernel_of_a_pass_computes_the_same(rows: tuple[int, ...] | None) -> None:
    gemm = Gemm(role="experts up", m=16, n=8, k=12, groups=3, group_rows=rows)
    pool = grown_pool(gemm)
    out, grad_x, grad_w = (
        pool.take(2, torch.float32, *size) for size in ((16, 8), (16, 12), (3, 8, 12))
    )
    for one, result in zip(
        product_passes(gemm, torch.float32, pool), (out, grad_x, grad_w), strict=True
    ):
        one.kernels["mm"]()
        alone = result.clone()
        assert one.kernels.keys() == {"mm", "grouped_mm"}
        torch.testing.assert_close(one.kernels["grouped_mm"](), alone)


def test_passes_are_those_of_autograd() -> None:
    gemm = Gemm(role="qkv", m=6, n=5, k=4)
    pool = grown_pool(gemm)
    forward, to_input, to_weight = product_passes(gemm, torch.float32, pool)
    x, w = pool.take(0, torch.float32, 6, 4).clone(), pool.take(1, torch.float32, 5, 4).clone()
    forward.kernels["mm"]()
    torch.testing.assert_close(pool.take(2, torch.float32, 6, 5), x @ w.T)
    grad = pool.take(0, torch.float32, 6, 5).clone()
    to_input.kernels["mm"]()
    torch.testing.assert_close(pool.take(2, torch.float32, 6, 4), grad @ w)
    to_weight.kernels["mm"]()
    right = pool.take(1, torch.float32, 6, 4)
    torch.testing.assert_close(pool.take(2, torch.float32, 5, 4), grad.T @ right)


def traffic_of(model: ModelConfig, size: StepSize = SIZE) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for one in step_traffic(model, size, B):
        found[one.part] += one.total_bytes
    return dict(found)


def test_bytes_are_those_of_tensors_counted_by_hand() -> None:
    """Two sparse layers: 4 experts of 16, top-2; 4 query and 2 key heads of 8."""
    row = T * H * B
    found = traffic_of(sparse_model())
    # x -> y | (x, f) -> (x + f, y), three times | behind the last layer; backward likewise.
    assert found[parts.NORMS] == row * (2 + 3 * 4 + 4) + row * (4 + 3 * 4 + 3)
    assert found[parts.ATTENTION] == 2 * (2 + 2) * T * (4 + 2) * 8 * B
    assert found[parts.EXPERTS] == 2 * (3 + 5) * (2 * T * 16 * B)
    assert found[parts.DISPATCH] == 2 * 4 * (1 + 2) * row
    logits, chosen = T * 4 * 4, T * 2
    assert found[parts.ROUTER] == 2 * (3 * logits + chosen * (4 + 8 + 4))
    assert found[parts.HEAD] == 2 * T * V * B + 8 * T + 2 * row
    parameters = ledger(sparse_model(), 1).total_parameters
    assert found[parts.OPTIMIZER] == 32 * parameters  # p, g, m, v; p, m, v; g for the norm


@pytest.mark.parametrize(
    ("changes", "part", "extra"),
    [
        ({"qk_norm": "head"}, parts.ATTENTION, 2 * T * (4 + 2) * 8 * B),
        ({"rope": {"fraction": 0.5}}, parts.ATTENTION, -2 * 2 * T * (4 + 2) * 8 * B),
        ({"mtp_layers": 1}, parts.HEAD, None),
    ],
)
def test_bytes_follow_the_architecture(
    changes: dict[str, object], part: str, extra: int | None
) -> None:
    more = traffic_of(sparse_model(**changes))[part] - traffic_of(sparse_model())[part]
    assert more > 0 if extra is None else more == extra


def test_micro_batches_repeat_all_but_the_update() -> None:
    twice = StepSize(seq_len=4, micro_batch_size=2, micro_batches=2)
    one, two = traffic_of(sparse_model()), traffic_of(sparse_model(), twice)
    assert {name: two[name] // one[name] for name in one} == {
        name: 1 if name == parts.OPTIMIZER else 2 for name in one
    }


def test_a_rate_is_never_below_that_of_a_larger_working_set() -> None:
    rates = {1: 5.0, 4: 9.0, 16: 3.0}
    reached = [rate_at(size, rates) for size in (0, 1, 3, 4, 15, 16, 100)]
    assert reached == [9, 9, 9, 9, 9, 3, 3]
    assert all(a >= b for a, b in pairwise(reached))
