"""Fine-tuning and preference tuning in kernel set `te`, beside kernel set `torch`."""

from pathlib import Path
from typing import Any

import pytest

from moe.config.experiment import Experiment
from tests.support.checkpoint_content import checkpoint_content
from tests.support.fault_injection import rows
from tests.support.finetuning_stores import write_chats, write_pairs
from tests.support.layout_equivalence import FullTensors, worst_difference
from tests.support.transformer_engine.runs import Job, experiment, train_all

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
STEPS = 4
TRAIN = {"steps": STEPS, "seq_len": 64, "learning_rate": 1e-3, "checkpoint_interval": STEPS,
         "eval_interval": STEPS, "eval_sequences": 8}  # fmt: skip
LOSS, WEIGHT = {"fp32": 1e-5, "bf16": 0.02, "fp8": 0.05}, 1e-3
"""Largest relative differences to kernel set `torch` in FP32: of a loss; of a weight in FP32, over
its tensor's largest."""
ROWS = {"sft": 1, "dpo": 2}
"""Of a micro-batch: Transformer Engine takes packed conversations one row at a time."""
MODES = {"sft": write_chats, "dpo": write_pairs}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch_fp32": ("torch", {"dtype": "fp32"}),
    "te_fp32": ("te", {"dtype": "fp32"}),
    "te_bf16": ("te", {"dtype": "bf16"}),
    "te_fp8": ("te", {"dtype": "bf16", "fp8": "delayed"}),
}


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of both modes in every kind, from one base."""
    root = tmp_path_factory.mktemp("runs")
    base = root / "base"
    stores = {mode: write(root) for mode, write in MODES.items()}

    def tuned(kind: str, mode: str) -> Experiment:
        kernels, precision = KINDS[kind]
        train = TRAIN | {"mode": mode, "init": str(base), "micro_batch_size": ROWS[mode]}
        return experiment(stores[mode], kernels, train=train, **precision)

    train_all([Job(experiment(store, "torch", train={"checkpoint_interval": STEPS}), base)])
    for kernels in ("torch", "te"):
        kinds = [kind for kind in KINDS if kind.startswith(kernels)]
        train_all([Job(tuned(k, mode), root / f"{mode}_{k}") for k in kinds for mode in MODES])
    return root


def losses(run_dir: Path) -> list[float]:
    return [row["loss"] for name in ("metrics", "evaluations") for row in rows(run_dir, name)]


def weights(run_dir: Path) -> FullTensors:
    content = checkpoint_content(run_dir / f"checkpoints/step-{STEPS:08d}")
    return {key: x for key, x in content.items() if not key.startswith(("optimizer.", "fp8."))}


@pytest.mark.parametrize("kind", LOSS)
@pytest.mark.parametrize("mode", MODES)
def test_losses_are_those_of_the_other_kernels(mode: str, kind: str, runs: Path) -> None:
    ours, theirs = losses(runs / f"{mode}_torch_fp32"), losses(runs / f"{mode}_te_{kind}")
    assert len(ours) == STEPS + 1
    assert theirs == pytest.approx(ours, rel=LOSS[kind])


@pytest.mark.parametrize("mode", MODES)
def test_weights_are_those_of_the_other_kernels(mode: str, runs: Path) -> None:
    ours, theirs = weights(runs / f"{mode}_torch_fp32"), weights(runs / f"{mode}_te_fp32")
    difference, name = worst_difference(ours, theirs)
    assert difference < WEIGHT, name
    moved, _ = worst_difference(ours, weights(runs / "base"))
    assert moved > 5 * WEIGHT
