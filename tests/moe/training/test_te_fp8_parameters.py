"""Weights that are kept in FP8 (`precision.fp8_parameters`), beside weights that are kept in BF16.

Both round the same masters by the same recipe: losses, weights and optimizer states are equal to
the bit. Gradients are not clipped: their norm is a sum, whose order is that of buffers.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from parallel.precision.recipes import Fp8Scaling
from tests.support.checkpoint_content import checkpoint_content
from tests.support.distributed import RankFailedError
from tests.support.fault_injection import Spoil, record, rows, train_rank
from tests.support.layout_equivalence import FullTensors
from tests.support.trained_runs import command
from tests.support.transformer_engine.fp8 import DENSE, need_card
from tests.support.transformer_engine.ranks import run_te_ranks
from tests.support.transformer_engine.runs import SAVED_AT, STEPS, Job, experiment, train_all

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
KEPT_IN = {"bf16": False, "fp8": True}
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "dp2": (2, {}),
    "tp2": (2, {"tp": 2}),
    "ep2": (2, {"ep": 2}),
    "pp2": (2, {"pp": 2}),
    "overlap": (2, {"overlap_grad_reduce": True, "overlap_param_gather": True}),
}
TRAINED: list[tuple[Fp8Scaling, str]] = [
    ("delayed", "dp2"), ("delayed", "tp2"), ("delayed", "ep2"),
    ("current", "one"), ("current", "ep2"), ("current", "overlap"),
    ("blockwise", "tp2"), ("blockwise", "overlap"),
    ("mxfp8", "one"), ("mxfp8", "ep2"), ("mxfp8", "pp2"),
]  # fmt: skip


def job(
    run: Path, store: Path, fp8: str, kept_in: str, layout: str = "one", *,
    begun: Path | None = None, **train: Any,
) -> Job:  # fmt: skip
    wanted = experiment(
        store, "te", LAYOUTS[layout][1], train={"clip_grad": 0} | train,
        dtype="bf16", fp8=fp8, fp8_parameters=KEPT_IN[kept_in],
    )  # fmt: skip
    return Job(wanted, run, begun)


def content(run: Path, step: int = STEPS) -> FullTensors:
    return checkpoint_content(run / f"checkpoints/step-{step:08d}")


def differing(found: FullTensors, expected: FullTensors) -> list[str]:
    """Return the names of tensors that differ in any bit."""
    assert found.keys() == expected.keys()
    return [key for key, x in found.items() if x.tobytes() != expected[key].tobytes()]


@pytest.mark.parametrize(("scaling", "layout"), TRAINED)
def test_training_and_checkpoints_equal_those_of_weights_in_bf16(
    scaling: Fp8Scaling, layout: str, store: Path, tmp_path: Path
) -> None:
    need_card(scaling)
    runs = {kind: tmp_path / kind for kind in KEPT_IN}
    for kind, run in runs.items():
        train_all([job(run, store, scaling, kind, layout)], LAYOUTS[layout][0])
    in_fp8 = {kind: record(run)["execution"]["fp8"]["weights"] for kind, run in runs.items()}
    assert in_fp8["fp8"] > in_fp8["bf16"] == 0
    losses = {kind: [row["loss"] for row in rows(run)] for kind, run in runs.items()}
    assert losses["fp8"] == losses["bf16"]
    assert losses["fp8"][-1] < losses["fp8"][0] - 0.5
    for step in (SAVED_AT, STEPS):
        found, expected = (content(runs[kind], step) for kind in ("fp8", "bf16"))
        # Weights in FP8 have their amax before the next step, others in it.
        assert all(".amax_history_fwd" in key for key in differing(found, expected))
    first = content(runs["fp8"], SAVED_AT)
    assert [key for key in differing(first, found) if key.endswith(".weight")] == [
        key for key in found if key.endswith(".weight")
    ]


@pytest.mark.parametrize(("scaling", "layout"), [("delayed", "ep2"), ("mxfp8", "dp2")])
def test_a_run_goes_on_from_either_kind_of_weights(
    scaling: Fp8Scaling, layout: str, store: Path, tmp_path: Path
) -> None:
    need_card(scaling)
    for kind in KEPT_IN:
        train_all([job(tmp_path / kind, store, scaling, kind, layout)], LAYOUTS[layout][0])
    for before in KEPT_IN:
        resumed = tmp_path / f"from_{before}"
        on = job(resumed, store, scaling, "fp8", layout, begun=tmp_path / before)
        train_all([on], LAYOUTS[layout][0])
        assert differing(content(resumed), content(tmp_path / "fp8")) == [], before


def test_frozen_weights_keep_the_numbers_that_they_were_given(store: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    train_all([job(base, store, "current", "fp8")])
    tuned = {"init": str(base), "trainable": ["*.linear_fc2.*", "*norm*"]}
    runs = {kind: tmp_path / kind for kind in KEPT_IN}
    train_all([job(run, store, "current", kind, **tuned) for kind, run in runs.items()])
    resumed = tmp_path / "resumed"
    train_all([job(resumed, store, "current", "fp8", begun=runs["fp8"], **tuned)])
    assert [row["loss"] for row in rows(runs["fp8"])] == [row["loss"] for row in rows(runs["bf16"])]
    found, given = content(runs["fp8"]), content(base)
    for other in (runs["bf16"], resumed):
        assert differing(found, content(other)) == []
    frozen = [key for key in found if key.endswith((".linear_fc1.weight", ".linear_qkv.weight"))]
    assert [key for key in frozen if found[key].tobytes() != given[key].tobytes()] == []
    assert len(frozen) == 5


def test_a_rejected_step_and_evaluations_leave_weights_and_scales(
    store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train = {"checkpoint_interval": 1, "keep_checkpoints": 9, "on_nonfinite": "skip"}
    wanted = job(run, store, "delayed", "fp8", **train, eval_interval=1, eval_sequences=8)
    run_te_ranks(1, _train_spoilt, wanted)
    assert [row["step"] for row in rows(run, "refused")] == [3]
    states = [content(run, step) for step in range(1, STEPS + 1)]
    assert differing(states[1], states[2]) == []
    assert differing(states[2], states[3])
    plain = job(tmp_path / "plain", store, "delayed", "fp8")
    train_all([plain])
    assert differing(content(plain.run_dir, SAVED_AT), states[1]) == []


def _train_spoilt(wanted: Job) -> None:
    train_rank(wanted.experiment, wanted.run_dir, fault=Spoil(3, "gradient"))


@pytest.mark.needs("hub")
def test_a_run_is_evaluated_and_exported(store: Path, tmp_path: Path) -> None:
    run, exported = tmp_path / "run", tmp_path / "exported"
    wanted = experiment(
        store, "te", model=DENSE, train={"eval_sequences": 8},
        dtype="bf16", fp8="current", fp8_parameters=True,
    )  # fmt: skip
    train_all([Job(wanted, run)])
    for arguments in (("convert", "to-hf", run, "-o", exported), ("eval", run, "--device", "cpu")):
        code, said, fault = command(*arguments, "--json")
        assert code == 0, fault
    trained = rows(run, "evaluations")[-1]["loss"]
    assert json.loads(said)["loss"] == pytest.approx(trained, rel=0.01)  # here in FP32
    found = load_file(next(exported.glob("*.safetensors")))
    key = "decoder.layers.0.self_attention.linear_proj.weight"
    master = torch.from_numpy(content(run)[f"optimizer.state.param.{key}"])
    assert torch.equal(found["model.layers.0.self_attn.o_proj.weight"], master.bfloat16())


def test_weights_that_are_not_in_fp8_are_noticed(store: Path, tmp_path: Path) -> None:
    message = "precision.fp8_parameters: asked for True, but the built model has False"
    with pytest.raises(RankFailedError, match=message):
        run_te_ranks(1, _train_without, job(tmp_path / "run", store, "current", "fp8"))


def _train_without(wanted: Job) -> None:
    from moe.model import mcore_config

    real = mcore_config._fp8_values
    mcore_config._fp8_values = lambda precision: real(precision) | {"fp8_param": False}
    train_rank(wanted.experiment, wanted.run_dir)
