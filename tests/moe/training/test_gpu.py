"""Kernel set `torch` on a card computes what a CPU computes in FP32: `make gpu`.

Without a card these tests compare a CPU with itself, so that nothing else can be wrong with them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.distributed import run_ranks
from tests.support.gpu import Computed, compute_all, device_under_test
from tests.support.layout_equivalence import make, worst_difference
from tests.support.trained_runs import ATTENTION_KINDS

pytestmark = pytest.mark.gpu

FP32_LOGITS, FP32_GRADIENTS, FP32_LOSS = 1e-4, 1e-3, 1e-4
"""Largest differences, relative to the largest value: other orders of summation."""
BF16_LOGITS, BF16_LOSS = 0.05, 0.02
"""The same with eight bits of mantissa; a loss at every step of training."""
STEPS = 6
ALIGNED: dict[str, Any] = {"hidden_size": 64, "num_heads": 4, "num_kv_heads": 2}


def computed(store: Path, device: str, dtype: str, kinds: list[str]) -> dict[str, Computed]:
    """Compute in a process of their own what kinds of attention give on a device."""
    experiments = {
        kind: make(
            store,
            {"device": device, "distributed_optimizer": False},
            model=ALIGNED | ATTENTION_KINDS[kind],
            precision={"dtype": dtype},
            train={"steps": STEPS if kind == "grouped_query" else 1, "warmup_steps": 0},
        )
        for kind in kinds
    }
    found: dict[str, Computed] = run_ranks(1, compute_all, experiments)[0]
    assert {one.device for one in found.values()} == {device}
    return found


@pytest.fixture(scope="module")
def reference(store: Path) -> dict[str, Computed]:
    return computed(store, "cpu", "fp32", list(ATTENTION_KINDS))


def difference(one: Any, other: Any) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def test_fp32_is_that_of_a_cpu(store: Path, reference: dict[str, Computed]) -> None:
    found = computed(store, device_under_test(), "fp32", list(ATTENTION_KINDS))
    for kind, ours in found.items():
        theirs = reference[kind]
        assert difference(ours.logits, theirs.logits) < FP32_LOGITS, kind
        assert ours.losses == pytest.approx(theirs.losses, rel=FP32_LOSS), kind
        worst, key = worst_difference(theirs.gradients, ours.gradients)
        assert worst < FP32_GRADIENTS, (kind, key)


def test_bf16_trains_as_fp32_on_a_cpu(store: Path, reference: dict[str, Computed]) -> None:
    ours = computed(store, device_under_test(), "bf16", ["grouped_query"])["grouped_query"]
    theirs = reference["grouped_query"]
    assert difference(ours.logits, theirs.logits) < BF16_LOGITS
    assert ours.losses == pytest.approx(theirs.losses, rel=BF16_LOSS)
    assert theirs.losses[-1] < theirs.losses[0] - 0.1
    # Something was rounded: BF16 was not FP32 in disguise.
    assert difference(ours.logits, theirs.logits) > FP32_LOGITS
