"""Activations where routers choose freely, and of networks without a gate."""

from dataclasses import replace
from typing import Any

import pytest

from parallel.layout.layout import Layout
from parallel.layout.placement import place
from parallel.planner.activations import layer_bytes, layer_gradient_bytes, received_tokens
from parallel.planner.compute_time.imbalance import busiest_rank_share
from parallel.planner.execution import Execution
from parallel.planner.memory import peak_memory
from parallel.planner.step.experts import NATURAL
from parallel.planner.weight_shapes import layer_matrices
from parallel.planner.workload import Workload
from parallel.precision.recipes import Precision
from tests.support.model_shapes import BATCH, DENSE, SPARSE

MANY = replace(SPARSE, num_experts=16, top_k=2)


def workload(routing: Any = "natural", ep: int = 4, **values: Any) -> Workload:
    """A job of a model with 16 experts on the ranks of one expert-parallel group."""
    shape = replace(MANY, capacity_factor=values.pop("capacity_factor", None))
    return Workload(
        shape=shape,
        placement=place(Layout(ep=ep), ep),
        batch=BATCH,
        precision=Precision(kernels="te", dtype="bf16"),
        execution=Execution(routing=routing),
        **values,
    )


def test_the_busiest_rank_has_the_share_that_its_time_has() -> None:
    share = busiest_rank_share(NATURAL, experts=16, top_k=2, ep=4, tokens=4 * 32)
    assert share > 1.3
    assert received_tokens(workload("forced")) == 2 * 32
    assert received_tokens(workload()) == round(2 * 32 * share)
    even, free = (peak_memory(workload(routing)) for routing in ("forced", "natural"))
    assert free.activation_bytes > even.activation_bytes
    assert (free.parameter_bytes, free.optimizer_bytes) == (
        even.parameter_bytes,
        even.optimizer_bytes,
    )


def test_a_rank_with_all_experts_receives_everything() -> None:
    assert received_tokens(workload(ep=1)) == 2 * 32


def test_the_larger_imbalance_counts() -> None:
    assert received_tokens(workload(expert_imbalance=1.01)) == received_tokens(workload())
    assert received_tokens(workload(expert_imbalance=3.0)) == 3 * 2 * 32


@pytest.mark.parametrize(("factor", "tokens"), [(1.0, 64), (1.25, 80), (0.5, 32)])
def test_a_capacity_cuts_what_routers_choose(factor: float, tokens: int) -> None:
    assert received_tokens(workload(capacity_factor=factor)) == tokens


def test_a_dense_model_has_no_tokens_to_route() -> None:
    work = replace(workload(ep=1), shape=DENSE)
    assert received_tokens(work) == 0
    assert peak_memory(work).total_bytes > 0


def test_a_network_without_a_gate_has_one_projection_less() -> None:
    """Of 24 inner elements a token, BF16: saved, and as gradients."""
    gated = replace(workload("forced", ep=1), shape=DENSE)
    plain = replace(gated, shape=replace(DENSE, is_gated=False))
    less = 32 * 24 * 2
    assert layer_bytes(gated, sparse=False) - layer_bytes(plain, sparse=False) == less
    assert layer_gradient_bytes(gated) - layer_gradient_bytes(plain) == less
    assert layer_matrices(gated, sparse=False) - layer_matrices(plain, sparse=False) == {(48, 8)}
    assert (24, 8) in layer_matrices(plain, sparse=False)
