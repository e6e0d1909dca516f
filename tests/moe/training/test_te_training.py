"""Training in kernel set `te`: its optimizer, and layouts whose collectives it runs itself."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from tests.support.architecture_options import CONFIGS, SHARED, Computed, compute, sparse
from tests.support.layout_equivalence import assemble, make, worst_difference
from tests.support.transformer_engine.comparison import device
from tests.support.transformer_engine.ranks import run_te_ranks
from tests.support.transformer_engine.training import Run, train

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
Way = Callable[[Experiment], Run]
TRAIN = {"seq_len": 24, "micro_batch_size": 2, "global_batch_size": 4}
LAYOUTS: dict[str, dict[str, Any]] = {"tp2": {"tp": 2}, "ep2": {"ep": 2}, "pp2": {"pp": 2}}
NAMES = (
    "tied", "linear_bias", "qk_norm_head", "sinks_window", "latent_queries", "sigmoid_bias_groups",
    "shared_gate", "seq_aux_loss", "predicting_twice", "deepseek_v3", "gpt_oss",
)  # fmt: skip


WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "full recomputation": (1, {"recompute": "full"}),
    "recomputed attention": (1, {"recompute": "selective", "recompute_modules": ["core_attn"]}),
    "recomputed norms": (1, {"recompute": "selective", "recompute_modules": ["layernorm"]}),
    "recomputed activations": (1, {"recompute": "selective", "recompute_modules": ["moe_act"]}),
    "interleaved": (2, {"pp": 2, "vpp": 2}),
    "whole experts": (2, {"tp": 2, "etp": 1}),
    "whole experts, spread": (2, {"tp": 2, "ep": 2, "etp": 1}),
    "whole experts, whole optimizers": (2, {"tp": 2, "etp": 1, "distributed_optimizer": False}),
    "sharded experts": (2, {"tp": 2, "etp": 2}),
    "only experts sharded": (2, {"tp": 1, "etp": 2}),
    "only experts, whole optimizers": (2, {"tp": 1, "etp": 2, "distributed_optimizer": False}),
    "overlap": (2, {"overlap_grad_reduce": True, "overlap_param_gather": True}),
    "allgather": (2, {"ep": 2, "dispatcher": "allgather"}),
    "overlapped experts": (2, {"ep": 2, "overlap_experts": True}),
    "overlapped experts, interleaved": (
        4,
        {
            "ep": 2,
            "pp": 2,
            "vpp": 2,
            "overlap_experts": True,
            "recompute": "selective",
            "recompute_modules": ["core_attn", "layernorm", "moe_act", "shared_experts"],
        },
    ),
}
PLAIN = ("dense", "qk_norm_head", "latent_queries", "deepseek_v3")
WINDOWS = ("window", "window_and_full")
IN_CONTEXT: dict[str, tuple[str, ...]] = {
    "p2p": PLAIN,
    "all_gather": (*PLAIN, *WINDOWS),
    "a2a": (*PLAIN, *WINDOWS, "sinks", "sinks_window", "gpt_oss"),
}
"""What Transformer Engine's attention computes over context-parallel ranks, by exchange."""


def experiments(
    store: Path, names: Iterable[str] = NAMES, dtype: str = "fp32", **layout: Any
) -> dict[str, Experiment]:
    layout = layout | {"device": device(), "distributed_optimizer": False}
    return {
        name: make(
            store, layout, model=model(name, dtype), train=TRAIN,
            precision={"kernels": "te", "dtype": dtype},
        )
        for name in names
        if not ("pp" in layout and CONFIGS[name].mtp_layers)
    }  # fmt: skip


def model(name: str, dtype: str) -> dict[str, Any]:
    values = CONFIGS[name].model_dump()
    if dtype == "bf16" and values["moe"] is not None:
        values["moe"]["forced_balance"] = True  # else roundings send tokens elsewhere
    return values


@pytest.fixture(scope="module")
def alone(store: Path) -> dict[str, Computed]:
    found: dict[str, Computed] = run_te_ranks(1, compute, experiments(store))[0]
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_compute_the_same(layout: str, store: Path, alone: dict[str, Computed]) -> None:
    wanted = experiments(store, **LAYOUTS[layout])
    ranks = run_te_ranks(2, compute, wanted)
    wrong = {}
    for name in wanted:
        parts = [rank[name] for rank in ranks]
        expected = assemble([alone[name].gradients])
        difference, key = worst_difference(expected, assemble([part.gradients for part in parts]))
        if difference > 1e-4:
            wrong[name] = (key, difference)
    assert not wrong


@pytest.fixture(scope="module")
def alone_in_bf16(store: Path) -> dict[str, Computed]:
    """In BF16, which Transformer Engine's attention over context-parallel ranks wants."""
    found: dict[str, Computed]
    [found] = run_te_ranks(1, compute, experiments(store, IN_CONTEXT["a2a"], "bf16"))
    return found


@pytest.mark.parametrize("exchange", IN_CONTEXT)
def test_context_parallel_ranks_compute_the_same(
    exchange: str, store: Path, alone_in_bf16: dict[str, Computed]
) -> None:
    names = IN_CONTEXT[exchange]
    apart = experiments(store, names, "bf16", cp=2, context_exchange=exchange)
    ranks = run_te_ranks(2, compute, apart)
    wrong = {}
    for name in names:
        expected = assemble([alone_in_bf16[name].gradients])
        found = assemble([rank[name].gradients for rank in ranks])
        difference, key = worst_difference(expected, found)
        loss = sum(rank[name].loss_sum for rank in ranks) / alone_in_bf16[name].loss_sum
        if difference >= 0.05 or abs(loss - 1) > 1e-3:
            wrong[name] = (key, difference, loss)
    assert not wrong


def run_small(
    store: Path, num_ranks: int, way: Way, layout: dict[str, Any], **precision: str
) -> Run:
    """Train a small model with shared and routed experts."""
    options = sparse(**SHARED, shared_expert_gate=True, expert_ffn_hidden_size=16)
    small = ModelConfig.model_validate(options | {"num_layers": 4}).model_dump()
    experiment = make(
        store, layout | {"device": device()}, model=small, precision=precision,
        train=TRAIN | {"steps": 6, "global_batch_size": 8},
    )  # fmt: skip
    runs: list[Run] = run_te_ranks(num_ranks, way, experiment)
    # Every rank clips by the norm that it has computed.
    assert [run.grad_norms for run in runs] == [runs[0].grad_norms] * num_ranks
    return runs[0]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_training_follows_the_other_kernels(dtype: str, store: Path) -> None:
    """Transformer Engine's fused Adam, sharded by the distributed optimizer, over whole steps."""
    ours = run_small(store, 1, train, {}, kernels="torch", dtype=dtype)
    theirs = run_small(store, 1, train, {}, kernels="te", dtype=dtype)
    tolerance = {"fp32": 1e-5, "bf16": 0.02}[dtype]
    assert theirs.losses == pytest.approx(ours.losses, rel=tolerance)
    assert theirs.grad_norms == pytest.approx(ours.grad_norms, rel=20 * tolerance)
    assert theirs.losses[-1] < 0.95 * theirs.losses[0]
    assert theirs.optimizer == "transformer_engine.pytorch.optimizers.fused_adam.FusedAdam"


@pytest.fixture(scope="module")
def plain(store: Path) -> Run:
    return run_small(store, 1, train, {}, kernels="te")


@pytest.mark.parametrize("name", WAYS)
def test_ways_to_compute_train_the_same(name: str, store: Path, plain: Run) -> None:
    num_ranks, layout = WAYS[name]
    found = run_small(store, num_ranks, train, layout, kernels="te")
    assert found.losses == pytest.approx(plain.losses, rel=1e-5)
    assert found.grad_norms == pytest.approx(plain.grad_norms, rel=1e-5)
