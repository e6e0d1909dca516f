"""Batches that nobody stated."""

import pytest

from benchmarks.decisions.batch import global_batch_size, step_tokens


@pytest.mark.parametrize("gpus", [1, 6, 8, 64, 1000, 16_384])
@pytest.mark.parametrize("tokens", [1e6, 1e10, 1e13, 1e30])
def test_replicas_share_a_batch_near_the_rule(gpus: int, tokens: float) -> None:
    size = global_batch_size(tokens, gpus, 4096)
    large, small = max(size, gpus), min(size, gpus)
    ratio = large // small
    assert small * ratio == large
    assert ratio & (ratio - 1) == 0
    wanted = step_tokens(tokens) / 4096
    assert size <= max(2 * wanted, gpus)
    assert size >= min(wanted / 2, gpus / 8)


def test_the_rule_is_step_law_s() -> None:
    assert step_tokens(1e11) == pytest.approx(0.58 * 1e11**0.571)
    assert step_tokens(1e30) == 2**24
