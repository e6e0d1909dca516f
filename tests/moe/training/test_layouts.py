"""Every layout computes what one process computes: losses, gradients, parameters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.config.experiment import Experiment
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import (
    Curve,
    Observed,
    Shard,
    assemble,
    first_gradients,
    make,
    observe,
    train_curve,
    worst_difference,
)

pytestmark = pytest.mark.engine

LOSS = 1e-5
"""Largest relative difference of a loss or gradient norm."""
GRADIENT = 1e-5
"""Largest difference of a gradient, relative to its tensor's largest."""
PARAMETER = 1e-4
"""The same of a trained parameter: AdamW divides rounding noise by small gradients."""

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "tp2": (2, {"tp": 2}),
    "pp2": (2, {"pp": 2}),
    "ep2": (2, {"ep": 2}),
    "cp2": (2, {"cp": 2}),
    "dp2": (2, {}),
    "tp2_ep2": (4, {"tp": 2, "ep": 2}),
    "pp2_ep2": (4, {"pp": 2, "ep": 2}),
    "pp2_vpp2": (2, {"pp": 2, "vpp": 2}),
}

MORE_LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "etp2": (2, {"tp": 2, "etp": 2}),
    "ep2_allgather": (2, {"ep": 2, "dispatcher": "allgather"}),
    "dp2_overlapped": (2, {"overlap_grad_reduce": True, "overlap_param_gather": True}),
    "dp2_whole_optimizer": (2, {"distributed_optimizer": False}),
    "pp2_uneven": (2, {"pp": 2, "stage_layers": [3, 1]}),
    "pp2_ends_count": (2, {"pp": 2, "vpp": 3, "ends_count_as_layers": True}),
    "recompute_full": (1, {"recompute": "full"}),
    "pp2_vpp2_recompute_full": (2, {"pp": 2, "vpp": 2, "recompute": "full"}),
    "tp2_recompute_parts": (
        2,
        {
            "tp": 2,
            "recompute": "selective",
            "recompute_modules": ["core_attn", "layernorm", "mlp", "moe"],
        },
    ),
    "recompute_shared_experts": (
        1, {"recompute": "selective", "recompute_modules": ["shared_experts"]}
    ),
    "ep2_etp2": (4, {"tp": 2, "ep": 2, "etp": 2}),
    "folded_cp2_tp2_in_ep4": (4, {"tp": 2, "cp": 2, "ep": 4}),
    "pp4": (4, {"pp": 4}),
    "tp2_pp2_ep4": (8, {"tp": 2, "pp": 2, "ep": 4}),
    "tp2_cp2_ep2_etp2_allgather": (
        8, {"tp": 2, "cp": 2, "ep": 2, "etp": 2, "dispatcher": "allgather"}
    ),
}  # fmt: skip
"""More combinations: expert-TP, folding, uneven stages, recomputation, overlap."""
STEPS = 3


def _experiment(
    store: Path, parallel: dict[str, Any], steps: int = STEPS, **model: Any
) -> Experiment:
    # Two micro-batches a rank where two data-parallel ranks have a pipeline each.
    train = {"steps": steps, "warmup_steps": 1, "global_batch_size": 8}
    return make(store, parallel, train=train, model=model)


@pytest.fixture(scope="module")
def one_process(store: Path) -> Observed:
    """What one process computes."""
    observed: Observed = run_ranks(1, observe, _experiment(store, {}))[0]
    return observed


@pytest.mark.parametrize("name", [*LAYOUTS, *MORE_LAYOUTS])
def test_layout_computes_what_one_process_does(
    name: str, store: Path, one_process: Observed
) -> None:
    """Initial weights, the first step's gradients, every step's losses, trained parameters."""
    num_ranks, parallel = (LAYOUTS | MORE_LAYOUTS)[name]
    expected = one_process
    ranks = run_ranks(num_ranks, observe, _experiment(store, parallel))
    weights = assemble([rank.weights for rank in ranks])
    assert worst_difference(assemble([expected.weights]), weights)[0] == 0
    gradients = [rank.gradients for rank in ranks if rank.gradients is not None]
    assert len(gradients) == (0 if parallel.get("overlap_param_gather") else num_ranks)
    if gradients:
        assert expected.gradients is not None
        difference, tensor = worst_difference(assemble([expected.gradients]), assemble(gradients))
        assert difference < GRADIENT, tensor
    for rank in ranks:
        _assert_same_curve(rank.curve, expected.curve)
    trained = assemble([rank.curve.parameters for rank in ranks])
    difference, tensor = worst_difference(assemble([expected.curve.parameters]), trained)
    assert difference < PARAMETER, tensor


@pytest.mark.parametrize("head", [{"tie_embeddings": True}, {"mtp_layers": 1}])
def test_overlapped_gather_ends_before_any_head_is_used(head: dict[str, Any], store: Path) -> None:
    parallel = {"pp": 2, "overlap_grad_reduce": True, "overlap_param_gather": True}
    expected = run_ranks(1, train_curve, _experiment(store, {}, **head))[0]
    for curve in run_ranks(4, train_curve, _experiment(store, parallel, **head)):
        _assert_same_curve(curve, expected)


def _assert_same_curve(curve: Curve, expected: Curve) -> None:
    assert len(expected.losses) == STEPS
    np.testing.assert_allclose(curve.losses, expected.losses, rtol=LOSS)
    np.testing.assert_allclose(curve.grad_norms, expected.grad_norms, rtol=LOSS)
    for row, other in zip(curve.router_losses, expected.router_losses, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def _without(correction: str, name: str, store: Path) -> list[list[Shard]]:
    """Return each rank's gradients where one of our corrections of megatron-core is missing."""
    num_ranks, parallel = LAYOUTS[name]
    experiment = _experiment(store, {**parallel, "distributed_optimizer": False})
    return run_ranks(num_ranks, first_gradients, experiment, correction)


@pytest.mark.parametrize(
    ("correction", "tensor"),
    [("expert_allreduce", "experts"), ("norm_sequence_parallel", "layer_norm")],
)
def test_gradient_marks_are_needed(correction: str, tensor: str, store: Path) -> None:
    with pytest.raises(AssertionError, match=f"ranks disagree about .*{tensor}"):
        assemble(_without(correction, "tp2", store))


def test_gradient_norm_needs_expert_marks(store: Path, one_process: Observed) -> None:
    num_ranks, parallel = MORE_LAYOUTS["etp2"]
    experiment = _experiment(store, parallel, steps=1)
    wrong = run_ranks(num_ranks, train_curve, experiment, "expert_norm_mark")[0]
    right = one_process.curve  # as test_layout_computes_what_one_process_does[etp2] finds
    assert wrong.grad_norms[0] < (1 - 10 * LOSS) * right.grad_norms[0]
