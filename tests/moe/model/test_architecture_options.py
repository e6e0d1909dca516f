"""Every architecture option against a slow model written out, and under other layouts.

One step's loss, logits, gradients, balancing bias and expert load.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moe.config.experiment import Experiment
from moe.cost.model_shape import shape_of
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.validation import layout_faults
from tests.support.architecture_options import (
    CONFIGS,
    Computed,
    compute,
    router_formats,
    sparse,
    tokens_counted_for_bias,
)
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import FullTensors, assemble, make, worst_difference
from tests.support.reference_model import SlowModel, Step

pytestmark = pytest.mark.engine
TRAIN = {"seq_len": 24, "micro_batch_size": 2, "global_batch_size": 4}


DOCUMENTS = ("sparse", "window", "sinks_window", "latent_yarn", "predicting_twice")
"""Options that are tested with document masks."""
LAYOUTS: dict[str, dict[str, Any]] = {
    "tp2": {"tp": 2}, "ep2": {"ep": 2}, "cp2": {"cp": 2}, "pp2": {"pp": 2},
}  # fmt: skip
SHARDED = (
    "tied", "linear_bias", "qk_norm_head", "clamped_swiglu", "sinks", "yarn", "latent",
    "latent_queries", "interleaved", "one_expert", "sigmoid_bias_groups", "shared_gate", "z_loss",
    "seq_aux_loss", "sinkhorn", "capacity", "router_fp64", "predicting_twice", "predicting_tied",
    "deepseek_v3", "gpt_oss",
)  # fmt: skip
"""Options whose tensors a layout shards, or that communicate between ranks."""
BY_RANK = {"sinkhorn", "capacity"}
"""Options that consider the tokens of one rank: they differ where sequences are sharded."""


def experiments(
    store: Path, layout: dict[str, Any], names: Any, **train: Any
) -> dict[str, Experiment]:
    plain = {"distributed_optimizer": False}
    return {
        name: make(store, layout | plain, model=CONFIGS[name].model_dump(), train=TRAIN | train)
        for name in names
    }


@pytest.fixture(scope="module")
def alone(store: Path) -> dict[str, Computed]:
    found: dict[str, Computed] = run_ranks(1, compute, experiments(store, {}, CONFIGS))[0]
    return found


def _slow(name: str, found: Computed) -> tuple[SlowModel, Step, dict[str, torch.Tensor]]:
    whole = assemble([found.weights])
    weights = {key: torch.tensor(value).requires_grad_() for key, value in whole.items()}
    model = SlowModel(CONFIGS[name], weights)
    batches = [{k: torch.from_numpy(v) for k, v in batch.items()} for batch in found.batches]
    return model, model.step(batches), weights


@pytest.mark.parametrize("name", CONFIGS)
def test_option_computes_what_the_reference_does(name: str, alone: dict[str, Computed]) -> None:
    found = alone[name]
    model, step, weights = _slow(name, found)
    assert len(found.batches) == 2
    first = found.batches[0]
    with torch.no_grad():
        logits = model.logits(torch.from_numpy(first["tokens"]))
    assert found.logits is not None
    assert np.abs(found.logits - logits.numpy()).max() < 1e-4
    assert found.loss_sum == pytest.approx(step.losses.item(), rel=1e-5)
    (step.objective / found.tokens).backward()
    gradients = assemble([found.gradients])
    for key, weight in weights.items():
        if key.endswith("expert_bias"):
            expected = _updated_bias(
                name, weight, step.loads[key.removesuffix(".router.expert_bias")]
            )
        else:
            assert weight.grad is not None, key
            expected = weight.grad
        largest = max(float(expected.abs().max()), 1e-6)
        assert np.abs(gradients[key] - expected.numpy()).max() / largest < 1e-4, key
    loads = [load.numpy() for at, load in step.loads.items() if at.startswith("decoder")]
    assert np.array_equal(found.load, np.array(loads).reshape(found.load.shape))


def test_documents_see_only_themselves(store: Path) -> None:
    data = {"store": str(store), "prefetch_steps": 0, "document_mask": True}
    plain, halves = (
        {
            name: make(
                store, layout, model=CONFIGS[name].model_dump(), data=data,
                train=TRAIN | {"seq_len": 64},
            )
            for name in DOCUMENTS
        }
        for layout in ({"distributed_optimizer": False}, {"cp": 2, "distributed_optimizer": False})
    )  # fmt: skip
    alone, apart = run_ranks(1, compute, plain)[0], run_ranks(2, compute, halves)
    for name, found in alone.items():
        num_boundaries = [len(batch["cu_seqlens"]) for batch in found.batches]
        assert sum(num_boundaries) > 2 * 3
        _, step, weights = _slow(name, found)
        (step.objective / found.tokens).backward()
        assert found.loss_sum == pytest.approx(step.losses.item(), rel=1e-5)
        expected = {key: weight.grad.numpy() for key, weight in weights.items()}
        for parts in ([found], [rank[name] for rank in apart]):
            assert worst_difference(expected, _gradients(parts))[0] < 1e-4, name


def _updated_bias(name: str, bias: torch.Tensor, load: torch.Tensor) -> torch.Tensor:
    """arXiv:2408.15664, algorithm 1."""
    moe = CONFIGS[name].moe
    assert moe is not None
    return bias.detach() + moe.expert_bias_update_rate * torch.sign(load.mean() - load)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_compute_the_same(layout: str, store: Path, alone: dict[str, Computed]) -> None:
    names = [name for name in SHARDED if _can_be_sharded(name, layout)]
    ranks = run_ranks(2, compute, experiments(store, LAYOUTS[layout], names))
    wrong = {}
    for name in names:
        parts = [rank[name] for rank in ranks]
        expected = assemble([alone[name].gradients])
        difference, key = worst_difference(expected, assemble([part.gradients for part in parts]))
        loss = sum(part.loss_sum for part in parts)
        if difference > 1e-4 or loss != pytest.approx(alone[name].loss_sum, rel=1e-5):
            wrong[name] = (difference, key, loss - alone[name].loss_sum)
    assert not wrong


def _can_be_sharded(name: str, layout: str) -> bool:
    if name in BY_RANK:
        return layout in {"ep2", "pp2"}
    laid = Layout(**LAYOUTS[layout], device="cpu")
    batch = BatchSize(**TRAIN)
    return not layout_faults(laid, shape_of(CONFIGS[name]), batch, num_ranks=2)


def test_latent_attention_without_sequence_parallelism(
    store: Path, alone: dict[str, Computed]
) -> None:
    names = ["latent_dense"]
    ranks = run_ranks(2, compute, experiments(store, {"tp": 2, "sp": False}, names))
    one, two = (_gradients([rank[names[0]] for rank in r]) for r in ([alone], ranks))
    difference, key = worst_difference(one, two)
    assert difference < 1e-5, key


def test_excluded_options_are_those_that_cannot_be_sharded() -> None:
    out = {
        (name, layout)
        for layout in LAYOUTS
        for name in SHARDED
        if not _can_be_sharded(name, layout)
    }
    sequences = {(name, layout) for name in BY_RANK for layout in ("tp2", "cp2")}
    assert out == sequences | {("predicting_tied", "pp2")}


def test_global_balancing_loss_is_one_over_all_data_parallel_ranks(store: Path) -> None:
    names = ["global_aux_loss"]
    whole = run_ranks(1, compute, experiments(store, {}, names, micro_batch_size=4))
    halves = run_ranks(2, compute, experiments(store, {}, names))
    one, two = (_gradients([rank[names[0]] for rank in ranks]) for ranks in (whole, halves))
    assert worst_difference(one, two)[0] < 1e-5


def _gradients(parts: list[Computed]) -> FullTensors:
    return assemble([part.gradients for part in parts])


def test_forced_routing_is_even_or_random(store: Path, alone: dict[str, Computed]) -> None:
    even = alone["forced_balance"].load
    assert even.min() == even.max() == 4 * 24 * 2 / 8
    wanted = sparse(forced_balance="random", expert_bias=True, score_function="sigmoid")
    experiment = make(store, model=wanted, train=TRAIN | {"seq_len": 64, "global_batch_size": 32})
    load = run_ranks(1, compute, {"random": experiment})[0]["random"].load
    assert (load.sum(axis=1) == 32 * 64 * 2).all()
    assert load.max() < 1.2 * load.mean()
    assert (load != load.mean()).any()


def test_router_computes_in_the_configured_number_format(store: Path) -> None:
    models = {
        kind: sparse(router_dtype=kind, expert_ffn_hidden_size=16)
        for kind in ("fp32", "fp64", "model")
    }
    wanted = {
        kind: make(store, model=model, train=TRAIN, precision={"dtype": "bf16"})
        for kind, model in models.items()
    }
    assert run_ranks(1, router_formats, wanted)[0] == {
        "fp32": "torch.float32", "fp64": "torch.float64", "model": "torch.bfloat16",
    }  # fmt: skip


def test_only_training_moves_the_balancing_bias(store: Path) -> None:
    model = sparse(score_function="sigmoid", expert_bias=True)
    experiment = make(store, model=model, train=TRAIN | {"eval_sequences": 4})
    evaluated, trained = run_ranks(1, tokens_counted_for_bias, experiment)[0]
    assert evaluated == [0, 0]
    assert trained == [2 * 24 * 2] * 2  # a micro-batch's tokens, two experts each
