"""Overlapped expert communication (`parallel.overlap_experts`) changes nothing that is trained.

The same parts run in another order, so on a CPU every number is the same, bit by bit; but two uses
of one weight (tied embeddings) may be added in another order.
"""

from pathlib import Path
from typing import Any

import pytest

from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from tests.support.architecture_options import CONFIGS, Computed, compute
from tests.support.distributed import run_ranks
from tests.support.finetuning_stores import tune, write_chats, write_pairs
from tests.support.layout_equivalence import (
    MODEL,
    Curve,
    assemble,
    make,
    train_curve,
    worst_difference,
)
from tests.support.overlapped_schedule import parts_in_order, without_padding_for_routers
from tests.support.trained_runs import train_run

pytestmark = pytest.mark.engine

ROUNDING = 1e-6
"""Largest difference of tied embeddings' gradient, relative to its largest value."""
RECOMPUTED = {
    "recompute": "selective",
    "recompute_modules": ["core_attn", "layernorm", "mlp", "shared_experts"],
}
INTERLEAVED = {"ep": 2, "pp": 2, "vpp": 2}
ONE_EXPERT_EACH = MODEL["moe"] | {"num_experts": 2}
CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "ep2": (2, {"ep": 2}, {}),
    "interleaved": (4, INTERLEAVED, {}),
    "as_few_micro_batches_as_stages": (4, INTERLEAVED, {"train": {"global_batch_size": 8}}),
    "bf16_recomputed": (4, INTERLEAVED | RECOMPUTED, {"precision": {"dtype": "bf16"}}),
    "sharded_experts": (4, {"tp": 2, "ep": 2, "etp": 2}, {}),
    "contexts": (2, {"cp": 2, "ep": 2}, {}),
    "all_overlapped": (
        4, INTERLEAVED | {"overlap_grad_reduce": True, "overlap_param_gather": True}, {}
    ),
    "one_expert_each": (2, {"ep": 2}, {"model": {"moe": ONE_EXPERT_EACH}}),
    "emulated_fp8": (2, {"ep": 2}, {"precision": {"fp8": "emulated", "fp8_scaling": "delayed"}}),
}  # fmt: skip


def overlapped(experiment: Experiment) -> Experiment:
    """Return the experiment with overlapped expert communication."""
    layout = experiment.parallel.model_copy(update={"overlap_experts": True})
    return experiment.model_copy(update={"parallel": layout})


def assert_trains_the_same(num_ranks: int, experiment: Experiment) -> None:
    plain: list[Curve] = run_ranks(num_ranks, train_curve, experiment)
    other: list[Curve] = run_ranks(num_ranks, train_curve, overlapped(experiment))
    for one, two in zip(plain, other, strict=True):
        assert (two.losses, two.grad_norms) == (one.losses, one.grad_norms)
        assert two.router_losses == one.router_losses
    expected = assemble([curve.parameters for curve in plain])
    assert worst_difference(expected, assemble([c.parameters for c in other]))[0] == 0


@pytest.mark.parametrize("name", CASES)
def test_overlap_trains_the_same(name: str, store: Path) -> None:
    num_ranks, layout, sections = CASES[name]
    train = {"steps": 3, "warmup_steps": 1, "global_batch_size": 16} | sections.get("train", {})
    assert_trains_the_same(num_ranks, make(store, layout, **(sections | {"train": train})))


def _is_overlapped(model: ModelConfig) -> bool:
    return model.moe is not None and not model.mtp_layers


def test_every_model_computes_the_same(store: Path) -> None:
    """Also where the last layer is dense, whose final norm megatron-core's plan leaves out."""
    train = {"seq_len": 24, "micro_batch_size": 2, "global_batch_size": 12}
    layout = {"ep": 2, "distributed_optimizer": False}
    experiments = {
        name: make(store, layout, model=model.model_dump(), train=train)
        for name, model in CONFIGS.items()
        if _is_overlapped(model)
    }
    assert not CONFIGS["interleaved"].sparse_layers[-1]
    plain: list[dict[str, Computed]] = run_ranks(2, compute, experiments)
    other = run_ranks(2, compute, {name: overlapped(one) for name, one in experiments.items()})
    for name in experiments:
        for one, two in zip(plain, other, strict=True):
            assert two[name].loss_sum == one[name].loss_sum, name
            assert two[name].load.tolist() == one[name].load.tolist(), name
        expected = assemble([rank[name].gradients for rank in plain])
        found = assemble([rank[name].gradients for rank in other])
        difference, key = worst_difference(expected, found)
        assert difference <= (ROUNDING if CONFIGS[name].tie_embeddings else 0), (name, key)


@pytest.fixture(scope="module")
def base(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model to tune."""
    place = tmp_path_factory.mktemp("base") / "run"
    train_run(store, place, 2, layout={"ep": 2}, train={"steps": 4})
    return place


def _tuned(mode: str, base: Path, folder: Path, layout: dict[str, Any]) -> Experiment:
    """Tuning of rows with padding, in `sft` within the documents that each row has."""
    tuning_store = {"sft": write_chats, "dpo": write_pairs}[mode](folder)
    return tune(mode, tuning_store, layout, init=str(base), global_batch_size=16)


@pytest.mark.parametrize("mode", ["sft", "dpo"])
def test_padding_and_documents_reach_the_parts(mode: str, base: Path, tmp_path: Path) -> None:
    assert_trains_the_same(4, _tuned(mode, base, tmp_path, INTERLEAVED))


def test_routers_need_to_be_told_of_padding(base: Path, tmp_path: Path) -> None:
    experiment = overlapped(_tuned("sft", base, tmp_path, {"tp": 2, "ep": 2}))
    told = run_ranks(2, train_curve, experiment)[0]
    untold = run_ranks(2, without_padding_for_routers, experiment)[0]
    assert untold.router_losses[0] != pytest.approx(told.router_losses[0], rel=1e-4)


def test_parts_of_two_micro_batches_alternate(store: Path) -> None:
    """Three micro-batches through a dense and a sparse layer: the passes between do both ways."""
    train = {"steps": 1, "warmup_steps": 0, "global_batch_size": 12}
    experiment = make(store, {"ep": 2}, train=train, model={"num_layers": 2})
    assert run_ranks(2, parts_in_order, experiment)[0] == []
    forward = ["mlp forward", "moe_dispatch forward", "mlp forward", "moe_combine forward"]
    backward = ["moe_combine backward", "mlp backward", "moe_dispatch backward", "mlp backward"]
    both = [*backward[:3], forward[0], backward[3], *forward[1:]]
    found = run_ranks(2, parts_in_order, overlapped(experiment))[0]
    assert found == forward + both + both + backward
