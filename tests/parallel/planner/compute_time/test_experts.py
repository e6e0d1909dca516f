"""Grouped products, expert blocks, casts and imbalance."""

import pytest

from parallel.hardware.card import load_card
from parallel.planner.compute_time.casts import needs_transposed_copy, operand_cast_seconds
from parallel.planner.compute_time.expert_block import (
    ExpertBlock,
    expert_backward_seconds,
    expert_forward_seconds,
)
from parallel.planner.compute_time.gemm import gemm_seconds
from parallel.planner.compute_time.grouped_gemm import (
    ExpertRows,
    grouped_gemm_seconds,
    grouped_wgrad_seconds,
)
from parallel.planner.compute_time.imbalance import (
    Imbalance,
    busiest_rank_rows,
    busiest_rank_share,
    expert_loads,
)
from parallel.planner.compute_time.memory_bound import activation_seconds, norm_seconds

H100, B200 = load_card("h100"), load_card("b200")


def test_a_loop_is_the_sum_of_its_products() -> None:
    rows = ExpertRows(((3, 100.0), (1, 700.0)))
    looped = grouped_gemm_seconds(B200, rows, 4096, 2048, "bf16", looped=True)
    assert looped == pytest.approx(
        3 * gemm_seconds(B200, 100, 4096, 2048, "bf16")
        + gemm_seconds(B200, 700, 4096, 2048, "bf16")
    )
    assert grouped_gemm_seconds(B200, rows, 4096, 2048, "bf16", looped=False) < looped


def test_many_small_experts_cost_more_than_few() -> None:
    times = [
        grouped_gemm_seconds(
            H100, ExpertRows.even(experts, 16384), 4096, 2048, "bf16", looped=False
        )
        for experts in (4, 64, 512)
    ]
    assert times == sorted(times)
    assert times[2] > 2 * times[0]


def test_an_idle_expert_reads_no_weight() -> None:
    few, idle = ExpertRows(((2, 64.0),)), ExpertRows(((2, 64.0), (62, 0.0)))
    for seconds in (grouped_gemm_seconds, grouped_wgrad_seconds):
        assert seconds(H100, few, 4096, 2048, "bf16", looped=False) == seconds(
            H100, idle, 4096, 2048, "bf16", looped=False
        )


@pytest.mark.parametrize("looped", [False, True])
def test_gradients_of_small_experts_are_bound_by_fp32_traffic(looped: bool) -> None:
    rows = ExpertRows.even(64, 64 * 128)
    seconds = grouped_wgrad_seconds(B200, rows, 4096, 7168, "bf16", looped=looped)
    traffic = 8 * 4096 * 7168 * 64 / B200.rates.memory_bytes_per_s
    assert traffic < seconds < 2 * traffic


def block(rows: ExpertRows, *, gated: bool = True) -> ExpertBlock:
    return ExpertBlock(
        hidden=2048, ffn=768, rows=rows, tokens=8192, entries=rows.total, looped=False, gated=gated
    )


def test_an_expert_block_is_more_than_its_products() -> None:
    rows = ExpertRows.even(16, 65536)
    forward = expert_forward_seconds(H100, block(rows), "bf16")
    products = grouped_gemm_seconds(H100, rows, 1536, 2048, "bf16", looped=False)
    products += grouped_gemm_seconds(H100, rows, 2048, 768, "bf16", looped=False)
    assert forward > 1.3 * products
    assert 1.5 * forward < expert_backward_seconds(H100, block(rows), "bf16") < 3 * forward
    assert expert_forward_seconds(H100, block(rows, gated=False), "bf16") < forward


def test_casts_follow_recipe_and_architecture() -> None:
    assert operand_cast_seconds(H100, 1e8, "bf16") == 0
    plain = operand_cast_seconds(H100, 1e8, "fp8")
    assert operand_cast_seconds(H100, 1e8, "fp8", transposed=True) > 1.2 * plain
    assert operand_cast_seconds(H100, 1e8, "fp8", amax_known=False) > 1.5 * plain
    assert needs_transposed_copy(H100, "fp8")
    assert not needs_transposed_copy(B200, "fp8")
    assert needs_transposed_copy(B200, "mxfp8")


def test_memory_bound_kernels_are_their_bytes() -> None:
    reached = H100.rates.memory_bytes_per_s * H100.kernels.stream_efficiency
    launch = H100.kernels.launch_seconds
    assert norm_seconds(H100, 8192, 4096) == pytest.approx(launch + 4 * 8192 * 4096 / reached)
    gated = activation_seconds(H100, 8192, 4096, gated=True)
    assert gated == pytest.approx(launch + 6 * 8192 * 4096 / reached)
    assert norm_seconds(H100, 0, 4096) == 0


@pytest.mark.parametrize(
    "imbalance",
    [
        Imbalance(),
        Imbalance(kind="power-law", exponent=1.2),
        Imbalance(kind="power-law", exponent=1.01),
        Imbalance(kind="hot-expert", hot=6.0),
    ],
)
@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (128, 8), (256, 8)])
def test_loads_sum_to_all_rows_and_none_passes_all_tokens(
    imbalance: Imbalance, experts: int, top_k: int
) -> None:
    loads = expert_loads(imbalance, experts, top_k, tokens=4096)
    assert sum(loads) == pytest.approx(experts)
    assert max(loads) <= experts / top_k * (1 + 1e-9)
    assert loads == sorted(loads, reverse=True)
    shares = [
        busiest_rank_share(imbalance, experts=experts, top_k=top_k, ep=ep, tokens=4096)
        for ep in (1, 2, 4, 8)
    ]
    assert shares[0] == pytest.approx(1.0)
    assert shares == sorted(shares)


def test_a_hot_expert_by_hand() -> None:
    hot = Imbalance(kind="hot-expert", hot=3.0)
    # Eight experts: one with 3 means, seven with 5/7. Two a rank: (3 + 5/7) / 2.
    share = busiest_rank_share(hot, experts=8, top_k=1, ep=4, tokens=1024)
    assert share == pytest.approx((3 + 5 / 7) / 2)
    rows = busiest_rank_rows(hot, experts=8, top_k=1, ep=4, tokens=1024)
    assert rows.total == pytest.approx(256 * share)
    assert rows.groups[0] == (1, pytest.approx(384))
