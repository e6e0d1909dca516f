"""FP8 through Transformer Engine's own recipes and quantizers, in kernel set `te`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from parallel.precision.recipes import Fp8Scaling
from tests.support.layout_equivalence import make
from tests.support.transformer_engine.comparison import device
from tests.support.transformer_engine.fp8 import (
    SPARSE,
    Recipe,
    compare_experts,
    compare_recipe,
    compare_scales,
    need_card,
    round_masters,
    train_recipe,
)
from tests.support.transformer_engine.ranks import run_te_ranks
from tests.support.transformer_engine.training import Run

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
SCALINGS: tuple[Fp8Scaling, ...] = ("delayed", "current", "blockwise", "mxfp8")
TRAIN = {
    "seq_len": 32,
    "micro_batch_size": 2,
    "global_batch_size": 4,
    "steps": 3,
    "warmup_steps": 1,
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_emulated_fp8_rounds_as_the_recipe_does(scaling: Fp8Scaling) -> None:
    need_card(scaling)
    found: Recipe = run_te_ranks(1, compare_recipe, SPARSE, scaling)[0]
    assert found.losses_to_fp32 > 1e-3
    assert found.losses_to_emulated < found.losses_to_fp32 / 100
    assert found.gradients_to_fp32 > 1e-2
    assert found.gradients_to_emulated < found.gradients_to_fp32 / 10


def test_emulated_delayed_scaling_equals_the_recipe_bit_by_bit() -> None:
    """Each expert has amaxes of its own, and without tokens keeps its scales."""
    need_card("delayed")
    steps = [[32, 16, 16], [16, 0, 48], [32, 16, 16], [0, 0, 16]]
    assert run_te_ranks(1, compare_experts, steps)[0] == [[0.0, 0.0, 0.0]] * len(steps)


@pytest.mark.parametrize("ep", [1, 2])
def test_emulated_delayed_scaling_has_the_scales_of_the_recipe(ep: int) -> None:
    """Each expert's own, also of experts that have no tokens in a step."""
    need_card("delayed")
    for found in run_te_ranks(ep, compare_scales, SPARSE, ep):
        assert found.keys() >= {"mlp.experts.linear_fc1", "self_attention.linear_qkv"}
        for name, (ours, theirs) in found.items():
            # Attention sums in another order.
            assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=1e-5, atol=0), name
        assert len({str(of_expert) for of_expert in found["mlp.experts.linear_fc1"][1]}) == 4 // ep


@pytest.mark.parametrize("scaling", ["delayed", "current", "blockwise"])
def test_fp8_parameters_are_rounded_masters(scaling: Fp8Scaling) -> None:
    need_card(scaling)
    assert run_te_ranks(1, round_masters, scaling)[0] == 0.0


def run_in(store: Path, fp8: str, num_ranks: int = 1, **layout: Any) -> Run:
    experiment = make(
        store, {"device": device()} | layout, model=SPARSE.model_dump(), train=TRAIN,
        precision={"kernels": "te", "dtype": "bf16", "fp8": fp8},
    )  # fmt: skip
    runs: list[Run] = run_te_ranks(num_ranks, train_recipe, experiment)
    return runs[0]


@pytest.fixture(scope="module")
def bf16(store: Path) -> Run:
    return run_in(store, "none")


LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}), "tp2": (2, {"tp": 2}), "ep2": (2, {"ep": 2}),
    "cp2": (2, {"cp": 2}), "recomputed": (1, {"recompute": "full"}),
}  # fmt: skip
TRAINED = [(scaling, layout) for scaling in SCALINGS for layout in ("one", "tp2", "ep2")] + [
    ("delayed", layout) for layout in ("cp2", "recomputed")
]


@pytest.mark.parametrize(("scaling", "layout"), TRAINED)
def test_training_in_fp8(scaling: Fp8Scaling, layout: str, store: Path, bf16: Run) -> None:
    need_card(scaling)
    num_ranks, ways = LAYOUTS[layout]
    found = run_in(store, scaling, num_ranks, **ways)
    assert found.losses == pytest.approx(bf16.losses, rel=0.02)
    assert found.grad_norms == pytest.approx(bf16.grad_norms, rel=0.2)
    assert found.losses != bf16.losses
    assert found.losses[-1] < found.losses[0]
