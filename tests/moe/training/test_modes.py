"""Fine-tuning and preference tuning: the same under every layout, and what they are said to be."""

import json
import math
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.store.manifest import TRAIN
from moe.config.experiment import Experiment
from moe.cost.document_flops import DocumentFlops
from moe.training.loader import open_loader
from tests.support.distributed import RankFailedError, run_ranks
from tests.support.finetuning_stores import tune, write_chats, write_pairs
from tests.support.layout_equivalence import (
    MODEL,
    Curve,
    assemble,
    started,
    train_curve,
    worst_difference,
)
from tests.support.trained_runs import train_here, train_run

LOSS, PARAMETER = 1e-5, 3e-4
"""Processors round sums in other orders, and Adam enlarges that where gradients are near zero:
1.06e-4 on one of them."""
EOS = 256
"""Of the stores' bytes."""
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "tp2_ep2": (2, {"tp": 2, "ep": 2}),
    "pp2": (2, {"pp": 2}),
    "cp2": (2, {"cp": 2}),
    "dp2": (2, {}),
}


@pytest.fixture(scope="module")
def base(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, pre-trained under another layout than any it is tuned under."""
    place = tmp_path_factory.mktemp("base") / "run"
    train_run(store, place, 2, layout={"ep": 2}, train={"steps": 10})
    return place


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tuning")
    return {"sft": write_chats(folder), "dpo": write_pairs(folder)}


@pytest.fixture(scope="module", params=["sft", "dpo"])
def alone(request: pytest.FixtureRequest, base: Path, stores: dict[str, Path]) -> tuple[str, Curve]:
    mode = request.param
    return mode, run_ranks(1, train_curve, tune(mode, stores[mode], init=str(base)))[0]


def _text_positions(experiment: Experiment) -> list[int]:
    """Count each step's positions that are more than an end token after an end token."""
    loader = open_loader(experiment, TRAIN, rank=0, ranks=1)
    steps = [loader.step(index) for index in range(experiment.train.steps)]
    return [sum(int(((b.tokens != EOS) | (b.labels != EOS)).sum()) for b in step) for step in steps]


def _slow_flops(experiment: Experiment) -> int:
    """Count what conversations cost, each on its own: in SFT packed, in DPO a row each."""
    loader = open_loader(experiment, TRAIN, rank=0, ranks=1)
    flops = DocumentFlops(experiment.model)
    total = 0
    for index in range(experiment.train.steps):
        for batch in loader.step(index):
            text = (batch.tokens != EOS) | (batch.labels != EOS)
            starts = (batch.position_ids == 0).flatten().nonzero()[:, 0]
            lengths = np.array([int(x.sum()) for x in text.flatten().tensor_split(starts)])
            is_sft = experiment.train.mode == "sft"
            total += flops.of_documents(lengths) if is_sft else flops.of_rows(lengths)
    return total


def test_tokens_leave_out_padding_and_positions_do_not(
    alone: tuple[str, Curve], base: Path, stores: dict[str, Path], tmp_path: Path
) -> None:
    mode, curve = alone
    experiment = tune(mode, stores[mode], init=str(base), steps=4)
    assert curve.tokens == _text_positions(tune(mode, stores[mode], init=str(base)))
    run_ranks(1, train_here, experiment, tmp_path / "run")
    record = json.loads((tmp_path / "run/record.json").read_text())
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    computed = 4 * experiment.train.global_batch_size * experiment.train.seq_len
    for counts in (record, row):
        assert (counts["tokens"], counts["positions"]) == (sum(curve.tokens[:4]), computed)
        assert counts["tokens"] < 0.9 * computed
    assert record["tokens_per_s"] * record["wall_time_s"] == pytest.approx(record["tokens"])
    assert record["training_flops"] == row["training_flops"] == _slow_flops(experiment)
    assert record["flops_per_s"] * record["wall_time_s"] == pytest.approx(record["training_flops"])
    assert record["goodput"]["useful_tokens"] == record["tokens"]


def _reported(experiments: list[Experiment]) -> list[Any]:
    """Return what two steps and an evaluation report: numbers, and tokens of each expert."""
    from moe.training.held_out import evaluate_held_out
    from moe.training.logs.aux_losses import pop_mean_aux_losses
    from moe.training.step import train_step

    found = []
    for experiment in experiments:
        with started(experiment) as trainer:
            results = [train_step(trainer, index) for index in range(2)]
            numbers = [result.grad_norm for result in results]
            numbers += [*results[1].extras.values(), *pop_mean_aux_losses(trainer).values()]
            loads = [trainer.routing.pop().counts.tolist()]
            numbers += evaluate_held_out(trainer).values()
            maps = trainer.routing_maps.pop()
            found.append((numbers, [*loads, maps["counts"], maps["together"]]))
    return found


@pytest.mark.engine
def test_preference_tuning_does_not_depend_on_padding(base: Path, stores: dict[str, Path]) -> None:
    """Of the policy and the reference: capacity, router losses, loads, held-out maps."""
    moe = MODEL["moe"] | {"capacity_factor": 0.9}
    less, more = run_ranks(1, _reported, [
        tune("dpo", stores["dpo"], init=str(base), model={"moe": moe}, seq_len=seq_len)
        for seq_len in (44, 64)
    ])[0]  # fmt: skip
    assert less[0] == pytest.approx(more[0], rel=1e-4)
    assert less[1] == more[1]


@pytest.mark.engine
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_agree(
    layout: str, alone: tuple[str, Curve], base: Path, stores: dict[str, Path]
) -> None:
    mode, expected = alone
    num_ranks, parallel = LAYOUTS[layout]
    experiment = tune(mode, stores[mode], parallel, init=str(base))
    curves = run_ranks(num_ranks, train_curve, experiment)
    for curve in curves:
        assert curve.tokens == expected.tokens
        np.testing.assert_allclose(curve.losses, expected.losses, rtol=LOSS)
        np.testing.assert_allclose(curve.grad_norms, expected.grad_norms, rtol=10 * LOSS)
        for row, other in zip(curve.router_losses, expected.router_losses, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
    trained = assemble([curve.parameters for curve in curves])
    difference, name = worst_difference(assemble([expected.parameters]), trained)
    assert difference < PARAMETER, name


def _first_step(experiment: Any, mask_all: bool = False) -> Any:
    """Return the first step's sums, gradients by name, and the batches' own scores."""
    import torch

    with started(experiment) as trainer:
        batches = trainer.loader.step(0)
        if mask_all:
            batches = [replace(b, loss_mask=torch.ones_like(b.loss_mask)) for b in batches]
        sums = trainer.forward_backward(batches, forward_only=False)
        whole = [trainer.chunks[0].module.get_parameter(n).main_grad for n in WATCHED]
        return sums.numpy(), [g.clone().numpy() for g in whole]


WATCHED = (
    "decoder.layers.1.mlp.router.weight",
    "decoder.layers.1.self_attention.linear_qkv.weight",
    "output_layer.weight",
)


@pytest.mark.engine
def test_router_losses_are_means_over_tokens_whatever_counts(
    base: Path, stores: dict[str, Path]
) -> None:
    """Their gradients must not grow as fewer tokens count."""

    def of_router_losses(mask_all: bool) -> list[Any]:
        gradients = []
        for coefficient in (0.0, 5.0):
            moe = MODEL["moe"] | {"aux_loss_coefficient": coefficient, "z_loss_coefficient": 0.0}
            experiment = tune("sft", stores["sft"], {"distributed_optimizer": False},
                              init=str(base), model={"moe": moe})  # fmt: skip
            gradients.append(run_ranks(1, _first_step, experiment, mask_all)[0][1][:2])
        return [with_ - without for without, with_ in zip(*gradients, strict=True)]

    for few, all_ in zip(of_router_losses(False), of_router_losses(True), strict=True):
        assert np.abs(few).max() > 1e-4
        np.testing.assert_allclose(few, all_, atol=1e-3 * np.abs(all_).max())


def _slow_dpo(experiment: Any, moved: float) -> Any:
    """DPO by its definition, from logits of single conversations, beside the trainer's."""
    import torch
    import torch.nn.functional as F

    with started(experiment) as trainer:
        policy = trainer.chunks[0].module
        reference = trainer.objective._reference[0]
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            for weight in policy.parameters():
                weight.add_(moved * torch.randn(weight.shape, generator=generator))
        batches = trainer.loader.step(0)
        trainer.optimizer.zero_grad()
        sums = trainer.forward_backward(batches, forward_only=False)
        names = [name for name, _ in policy.named_parameters()]
        fast = [policy.get_parameter(name).main_grad.clone() for name in names]

        def score(model: Any, tokens: Any, labels: Any, mask: Any) -> Any:
            length = int(mask.nonzero().max()) + 1
            logits = model(tokens[None, :length], torch.arange(length)[None], None)[0]
            picked = F.log_softmax(logits, -1).gather(1, labels[:length, None])[:, 0]
            return (picked * mask[:length]).sum()

        losses, margins = [], []
        policy.train()
        for batch in batches:
            rows = list(zip(batch.tokens, batch.labels, batch.loss_mask, strict=True))
            for chosen, rejected in zip(rows[::2], rows[1::2], strict=True):
                own = score(policy, *chosen) - score(policy, *rejected)
                with torch.no_grad():
                    other = score(reference, *chosen) - score(reference, *rejected)
                margins.append(float(0.3 * (own - other)))
                losses.append(-F.logsigmoid(0.3 * (own - other)))
        loss = torch.stack(losses).mean()
        slow = torch.autograd.grad(loss, [policy.get_parameter(name) for name in names])
        worst = max(
            float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
            for a, b in zip(fast, slow, strict=True)
        )
        return sums.tolist(), loss.item(), margins, worst


@pytest.mark.engine
@pytest.mark.parametrize("moved", [0.0, 0.02])
def test_dpo_is_its_definition(moved: float, base: Path, stores: dict[str, Path]) -> None:
    moe = MODEL["moe"] | {"aux_loss_coefficient": 0.0, "z_loss_coefficient": 0.0}
    experiment = tune("dpo", stores["dpo"], {"distributed_optimizer": False}, init=str(base),
                      dpo_beta=0.3, global_batch_size=8, model={"moe": moe})  # fmt: skip
    sums, loss, margins, worst = run_ranks(1, _slow_dpo, experiment, moved)[0]
    assert sums[0] / sums[1] == pytest.approx(loss, rel=1e-4)
    assert sums[1] == len(margins) == 4
    assert sums[2] == sum(margin > 0 for margin in margins) or moved == 0
    assert sums[3] == pytest.approx(sum(margins), abs=1e-4)
    assert worst < 1e-3
    if moved == 0:
        assert loss == pytest.approx(math.log(2), rel=1e-6)
    else:
        assert abs(loss - math.log(2)) > 1e-3


def _trained_names(experiment: Any) -> dict[str, bool]:
    """Train, and say of every parameter whether it changed; the training data's loss falls."""
    import torch

    from moe.training.step import train_step

    def loss(trainer: Any) -> float:
        with torch.no_grad():
            batches = (trainer.loader.step(index) for index in range(experiment.train.steps))
            sums = sum(trainer.forward_backward(b, forward_only=True) for b in batches)
        return float(sums[0])

    with started(experiment) as trainer:
        named = [pair for c in trainer.chunks for pair in whole_names(c.module)]
        before = {name: weight.detach().clone() for name, weight in named}
        loss_before = loss(trainer)
        for index in range(experiment.train.steps):
            train_step(trainer, index)
        assert loss(trainer) < loss_before or not loss_before
        return {name: not torch.equal(weight, before[name]) for name, weight in named}


def whole_names(chunk: Any) -> Any:
    from moe.training.startup.initial_weights import whole_names as names

    return names(chunk)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("patterns", "num_ranks", "layout"),
    [
        (["*.router.*"], 1, {}),
        (["*.mlp.experts.*"], 1, {}),
        (["*.router.*"], 2, {"pp": 2}),
        (["*.mlp.experts.*"], 2, {"tp": 2, "ep": 2}),
        (["decoder.layers.3.*", "output_layer.weight"], 2, {"pp": 2}),
    ],
)
def test_only_what_matches_learns(
    patterns: list[str], num_ranks: int, layout: dict[str, Any], base: Path, stores: dict[str, Path]
) -> None:
    # Router losses do not count in the loss that is to fall.
    moe = MODEL["moe"] | {"aux_loss_coefficient": 0.0, "z_loss_coefficient": 0.0}
    experiment = tune("sft", stores["sft"], layout, init=str(base), trainable=patterns,
                      learning_rate=1e-2, weight_decay=0.1, model={"moe": moe})  # fmt: skip
    ranks = run_ranks(num_ranks, _trained_names, experiment)
    changed = {name: state for rank in ranks for name, state in rank.items()}
    wanted = {name: any(fnmatchcase(name, p) for p in patterns) for name in changed}
    assert changed == wanted
    assert any(wanted.values()) and not all(wanted.values())


FROZEN_LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "pp2": (2, {"pp": 2}),
    "ep2": (2, {"ep": 2}),
    "full": (1, {"recompute": "full"}),
    "pp2_full": (2, {"pp": 2, "recompute": "full"}),
    "experts": (1, {"recompute": "selective", "recompute_modules": ["moe", "mlp"]}),
}


@pytest.mark.engine
def test_frozen_parts_train_alike_under_layouts(base: Path, stores: dict[str, Path]) -> None:
    curves = {}
    for name, (num_ranks, layout) in {"one": (1, {}), **FROZEN_LAYOUTS}.items():
        experiment = tune("sft", stores["sft"], layout, init=str(base), trainable=["*.router.*"])
        curves[name] = run_ranks(num_ranks, train_curve, experiment)[0]
    for name in FROZEN_LAYOUTS:
        np.testing.assert_allclose(curves[name].losses, curves["one"].losses, rtol=LOSS)
        np.testing.assert_allclose(curves[name].grad_norms, curves["one"].grad_norms, rtol=1e-4)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("patterns", "num_ranks", "layout"),
    [
        (["*.mlp.experts.*"], 1, {}),
        (["*.router.*", "output_layer.*"], 2, {"ep": 2}),
        (["decoder.layers.3.*"], 2, {"pp": 2}),
    ],
)
def test_frozen_runs_resume_to_the_same(
    patterns: list[str],
    num_ranks: int,
    layout: dict[str, Any],
    base: Path,
    stores: dict[str, Path],
    tmp_path: Path,
) -> None:
    experiment = tune("sft", stores["sft"], layout, init=str(base), trainable=patterns, steps=4)
    first = run_ranks(num_ranks, _steps, experiment, range(4), tmp_path)[0]
    after = run_ranks(num_ranks, _steps, experiment, range(2, 4), tmp_path)[0]
    assert after == first[2:]


def _steps(experiment: Any, steps: range, place: Path) -> list[float]:
    """Train; writes a checkpoint after step 2, or goes on from there."""
    from moe.checkpoint.training_state import load_checkpoint, snapshot
    from moe.checkpoint.writer import Checkpointer
    from moe.training.step import train_step

    losses = []
    with started(experiment) as trainer:
        if steps.start:
            load_checkpoint(next(place.glob("step-*")), trainer.chunks, trainer.optimizer)
        for index in steps:
            losses.append(train_step(trainer, index).loss)
            if index == 1:
                writer = Checkpointer(place, keep=1, keep_every=None)
                writer.save(2, snapshot(trainer.chunks, trainer.optimizer), {})
                writer.wait()
    return losses


def test_a_pattern_that_matches_nothing_is_refused(base: Path, stores: dict[str, Path]) -> None:
    experiment = tune("sft", stores["sft"], init=str(base), trainable=["*.gate.*"])
    with pytest.raises(
        RankFailedError, match=r'no parameter matches "\*\.gate\.\*": there are decoder'
    ):
        run_ranks(1, train_curve, experiment)


def test_weights_of_another_model_are_refused(base: Path, stores: dict[str, Path]) -> None:
    for changes, fault in (
        ({"num_layers": 3}, "has tensors that .model. has not: decoder.layers.3"),
        ({"num_layers": 5}, "decoder.layers.4"),
        ({"hidden_size": 64}, "in the checkpoint and .* in the model"),
    ):
        experiment = tune("sft", stores["sft"], init=str(base), model=changes)
        with pytest.raises(RankFailedError, match=f"ConfigError: .*{fault}"):
            run_ranks(1, train_curve, experiment)
