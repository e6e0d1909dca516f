"""Weight decay reaches matrices and nothing else, under every optimizer and layout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.config.experiment import Experiment
from tests.support.architecture_options import MODELS
from tests.support.distributed import run_ranks
from tests.support.layout_equivalence import Shard, assemble, make, shards, started

pytestmark = pytest.mark.engine

LEARNING_RATE, WEIGHT_DECAY = 0.125, 0.5
TRAIN = {
    "steps": 1,
    "learning_rate": LEARNING_RATE,
    "warmup_steps": 0,
    "schedule": "constant",
    "weight_decay": WEIGHT_DECAY,
}
OPTIONS = {"qk_norm": "head", "attention_sinks": True, "activation": "clamped_swiglu"}
MOE = MODELS["linear_bias"]["moe"] | {"expert_ffn_hidden_size": 16}
MODEL = MODELS["linear_bias"] | OPTIONS | {"moe": MOE}
BF16 = {"dtype": "bf16"}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (1, {"distributed_optimizer": False}),
    "plain_bf16": (1, {"distributed_optimizer": False, "precision": BF16}),
    "ep2_bf16": (2, {"ep": 2, "precision": BF16}),
    "tp2": (2, {"tp": 2}),
    "pp2": (2, {"pp": 2}),
}


def _decay_of_first_step(experiment: Experiment) -> list[Shard]:
    """Return how far a step pulls each weight from one, where all gradients are zero."""
    with started(experiment) as trainer:
        return _decay(trainer)


def _decay(trainer: Any) -> list[Shard]:
    for chunk in trainer.chunks:
        for parameter in chunk.parameters():
            parameter.data.fill_(1.0)
    trainer.optimizer.reload_model_params()
    _step_without_gradients(trainer)
    trainer.wait_for_param_gather()
    return [Shard(s.key, s.global_shape, s.offset, 1 - s.values) for s in shards(trainer.chunks)]


def _save_with_old_groups(experiment: Experiment, root: Path) -> None:
    """Save as versions before 0.2 did: experts' biases decayed, and decay in every group."""
    from moe.checkpoint.training_state import save_checkpoint
    from moe.training.optimization import optimizer
    from moe.training.step import train_step

    optimizer._not_decayed = lambda: None  # type: ignore[assignment,return-value]
    with started(experiment) as trainer:
        train_step(trainer, 0)
        for group in trainer.optimizer.param_groups:
            group["weight_decay"] = WEIGHT_DECAY
        save_checkpoint(root, 1, trainer.chunks, trainer.optimizer, {}, 1)


def _decay_after_loading(experiment: Experiment, checkpoint: Path) -> list[Shard]:
    """Return the same of a step after the optimizer's state was loaded, without its momentum."""
    from moe.checkpoint.training_state import load_checkpoint

    with started(experiment) as trainer:
        load_checkpoint(checkpoint, trainer.chunks, trainer.optimizer)
        for member in trainer.optimizer.chained_optimizers:
            for state in member.optimizer.state.values():
                state["exp_avg"].zero_()
        pulled = _decay(trainer)
        assert {group["step"] for group in trainer.optimizer.param_groups} == {2}
        return pulled


def _step_without_gradients(trainer: Any) -> None:
    """Take a step of the loop, in which the backward pass leaves only zeros."""
    from moe.training.step import train_step

    class Zeroed:
        """The optimizer, which clears all gradients before its update."""

        def __getattr__(self, name: str) -> Any:
            return getattr(trainer.optimizer, name)

        def step(self) -> Any:
            for chunk in trainer.chunks:
                chunk.zero_grad_buffer()
            return trainer.optimizer.step()

    train_step(replace(trainer, optimizer=Zeroed()), 0)


def _case(name: str, store: Path) -> tuple[int, Experiment]:
    num_ranks, options = CASES[name]
    layout = {key: value for key, value in options.items() if key != "precision"}
    precision = options.get("precision", {})
    return num_ranks, make(store, layout, model=MODEL, train=TRAIN, precision=precision)


def _is_matrix(key: str) -> bool:
    return not key.endswith(("bias", "norm.weight", "norm_weight", "softmax_offset"))


def _assert_only_matrices(ranks: list[list[Shard]]) -> None:
    pulled = assemble(ranks)
    assert sum(map(_is_matrix, pulled)) >= 8
    for name in (
        "experts.linear_fc1.bias",
        "experts.linear_fc2.bias",
        "softmax_offset",
        "layer_norm_weight",
    ):
        assert any(key.endswith(name) for key in pulled), name
    for key, values in pulled.items():
        expected = LEARNING_RATE * WEIGHT_DECAY if _is_matrix(key) else 0.0
        np.testing.assert_allclose(values, expected, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_only_matrices_are_decayed(name: str, store: Path) -> None:
    num_ranks, experiment = _case(name, store)
    _assert_only_matrices(run_ranks(num_ranks, _decay_of_first_step, experiment))


@pytest.mark.parametrize("name", ["plain", "plain_bf16", "ep2_bf16"])
def test_older_checkpoints_are_decayed_alike(name: str, store: Path, tmp_path: Path) -> None:
    """Whatever rates and groups a checkpoint's optimizer has, the next step decays matrices."""
    num_ranks, experiment = _case(name, store)
    run_ranks(num_ranks, _save_with_old_groups, experiment, tmp_path)
    ranks = run_ranks(num_ranks, _decay_after_loading, experiment, tmp_path / "step-00000001")
    _assert_only_matrices(ranks)
