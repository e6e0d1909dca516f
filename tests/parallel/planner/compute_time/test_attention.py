"""Attention: pairs counted by hand, and what masks, windows, shards and fusing change."""

from dataclasses import replace

import pytest

from parallel.hardware.card import load_card
from parallel.planner.compute_time.attention import (
    AttentionShape,
    attention_seconds,
    unfused_attention_seconds,
)

H200 = load_card("h200")
SHAPE = AttentionShape(batch=1, seq=8192, heads=32, kv_heads=8, qk_dim=128, v_dim=128)


def test_pairs_by_hand() -> None:
    full = replace(SHAPE, seq=1000, causal=False)
    assert full.pairs(100) == 1000 * 1000
    causal = replace(SHAPE, seq=1000)
    # 1 + 2 + ... + 1000, and half of a block of 100 on the diagonal for each query.
    assert causal.pairs(100) == 1000 * 1001 / 2 + 1000 * 50
    window = replace(SHAPE, seq=1000, window=10)
    assert window.pairs(100) == 55 + 990 * 10 + 1000 * 50


def test_flops_of_a_pair() -> None:
    latent = replace(SHAPE, qk_dim=192, v_dim=128)
    assert latent.flops_of_pair(backward=False) == 2 * (192 + 128)
    # Scores, their gradients' two products with qk_dim, two with v_dim.
    assert latent.flops_of_pair(backward=True) == 2 * (3 * 192 + 2 * 128)


@pytest.mark.parametrize("backward", [False, True])
def test_masks_windows_and_shards(backward: bool) -> None:
    causal = attention_seconds(H200, SHAPE, backward=backward)
    full = attention_seconds(H200, replace(SHAPE, causal=False), backward=backward)
    assert 1.6 < full / causal < 2.0
    longer = attention_seconds(H200, replace(SHAPE, seq=16384), backward=backward)
    assert 3.5 < longer / causal < 4.1
    window = replace(SHAPE, window=128)
    narrow = attention_seconds(H200, window, backward=backward)
    assert narrow < 0.2 * causal
    twice = attention_seconds(H200, replace(window, seq=16384), backward=backward)
    assert twice / narrow == pytest.approx(2, rel=0.1)
    half = attention_seconds(H200, replace(SHAPE, shards=2), backward=backward)
    assert half == pytest.approx(causal / 2, rel=0.15)


def test_backward_takes_about_three_forward_passes() -> None:
    # 3.1 at 4,096, 3.0 at 8,192 tokens: cuDNN on H200 (the tables' README).
    for seq, measured in ((4096, 3.1), (8192, 3.0)):
        shape = replace(SHAPE, seq=seq, heads=64)
        ratio = attention_seconds(H200, shape, backward=True) / attention_seconds(H200, shape)
        assert ratio == pytest.approx(measured, rel=0.1)


def test_scores_in_memory_cost_more() -> None:
    for backward in (False, True):
        assert unfused_attention_seconds(H200, SHAPE, backward=backward) > 2 * attention_seconds(
            H200, SHAPE, backward=backward
        )


def test_grouped_heads_save_bytes_not_products() -> None:
    own = attention_seconds(H200, replace(SHAPE, kv_heads=32))
    shared = attention_seconds(H200, SHAPE)
    assert shared <= own < 1.05 * shared
