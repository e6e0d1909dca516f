"""FP8 runs in kernel set `te` that are disturbed: rejected steps, evaluations, kills, signals.

Transformer Engine changes delayed scaling's scales and amax histories in the passes themselves;
emulated FP8, in kernel set `torch`, has a state of its own.
"""

import random
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.checkpoint.directory import complete_checkpoints, read_state
from moe.config.experiment import Experiment
from tests.support.checkpoint_content import checkpoint_content
from tests.support.distributed import RankFailedError
from tests.support.fault_injection import At, Kill, Spoil, rows, stop_rank, train_rank
from tests.support.finetuning_stores import write_pairs
from tests.support.layout_equivalence import FullTensors
from tests.support.transformer_engine.ranks import run_te_ranks
from tests.support.transformer_engine.runs import experiment

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
NATIVE = {"dtype": "bf16", "fp8": "delayed"}
EMULATED = {"fp8": "emulated", "fp8_scaling": "delayed"}
PRECISIONS = {"te": NATIVE, "torch": EMULATED}
EVERY_STEP: dict[str, Any] = {"checkpoint_interval": 1, "keep_checkpoints": 9, "eval_sequences": 8}
SPIKES = {
    "steps": 6,
    "on_spike": "skip",
    "spike_factor": 1.0001,
    "spike_window": 1,
    "learning_rate": 1e-5,
}
"""Without much learning, many a step's loss is above that of the last one."""


def run(wanted: Experiment, run_dir: Path, *, num_ranks: int = 1, **how: Any) -> None:
    run_te_ranks(num_ranks, partial(train_rank, wanted, run_dir, **how))


def saved(run_dir: Path) -> list[tuple[FullTensors, Any]]:
    """Return what each checkpoint holds: tensors, and the state of emulated FP8."""
    found = complete_checkpoints(run_dir / "checkpoints")
    return [(checkpoint_content(path), read_state(path)["fp8"]) for path in found]


def changed(before: tuple[FullTensors, Any], after: tuple[FullTensors, Any]) -> list[str]:
    """Return names of what differs between two checkpoints, in any bit."""
    assert before[0].keys() == after[0].keys()
    names = [key for key, x in before[0].items() if x.tobytes() != after[0][key].tobytes()]
    return names + ["emulated"] * (before[1] != after[1])


def scales(tensors: FullTensors, kind: str) -> FullTensors:
    return {key: x for key, x in tensors.items() if key.startswith("fp8.") and kind in key}


@pytest.mark.parametrize(
    ("kernels", "fault"), [("te", "gradient"), ("te", "spike"), ("torch", "gradient")]
)
def test_a_rejected_step_leaves_weights_optimizer_and_scales(
    kernels: str, fault: str, store: Path, tmp_path: Path
) -> None:
    train = EVERY_STEP | (SPIKES if fault == "spike" else {"on_nonfinite": "skip"})
    wanted = experiment(store, kernels, train=train, **PRECISIONS[kernels])
    run(wanted, tmp_path / "run", fault=None if fault == "spike" else Spoil(3, "gradient"))
    rejected = {row["step"] for row in rows(tmp_path / "run", "refused")}
    assert rejected and (fault == "spike" or rejected == {3})
    states = saved(tmp_path / "run")
    for step in range(2, 1 + len(states)):
        differing = changed(states[step - 2], states[step - 1])
        assert (differing == []) == (step in rejected), step
        if step not in rejected:
            assert any("fp8." in name or name == "emulated" for name in differing)


def test_a_rejected_first_step_leaves_scales_as_they_begin(store: Path, tmp_path: Path) -> None:
    train = EVERY_STEP | {"on_nonfinite": "skip"}
    run(experiment(store, "te", train=train, **NATIVE), tmp_path / "run", fault=Spoil(1, "loss"))
    tensors = saved(tmp_path / "run")[0][0]
    assert {float(v) for x in scales(tensors, ".scale_").values() for v in x.flat} == {1.0}
    assert {float(v) for x in scales(tensors, ".amax_").values() for v in x.flat} == {0.0}


@pytest.mark.parametrize("kernels", PRECISIONS)
def test_evaluations_change_nothing(kernels: str, store: Path, tmp_path: Path) -> None:
    for name, train in (("plain", {}), ("evaluated", {"eval_interval": 1})):
        wanted = experiment(store, kernels, train=EVERY_STEP | train, **PRECISIONS[kernels])
        run(wanted, tmp_path / name)
    assert len(rows(tmp_path / "evaluated", "evaluations")) > 2
    assert rows(tmp_path / "evaluated") == rows(tmp_path / "plain")
    both = zip(saved(tmp_path / "plain"), saved(tmp_path / "evaluated"), strict=True)
    assert [changed(*pair) for pair in both] == [[]] * 4


@pytest.fixture(scope="module")
def pairs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store of preferences, and settings that tune a model of a few steps by it."""
    folder = tmp_path_factory.mktemp("pairs")
    run(experiment(store, "te", dtype="bf16"), folder / "base")
    return write_pairs(folder), {"mode": "dpo", "init": str(folder / "base"), "seq_len": 64}


@pytest.mark.parametrize(
    ("fp8", "mode"), [("delayed", None), ("current", None), ("delayed", "dpo")]
)
def test_killed_stopped_and_resumed_equals_uninterrupted(
    fp8: str, mode: str | None, store: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source, train = (store, {}) if mode is None else request.getfixturevalue("pairs")
    train = train | {"steps": 5, "checkpoint_interval": 2, "eval_interval": 3, "eval_sequences": 8}
    ranks = 1 if mode else 2
    layout = {} if mode else {"ep": 2}
    wanted = experiment(source, "te", layout, train=train, dtype="bf16", fp8=fp8)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(wanted, whole, num_ranks=ranks)
    kill = Kill(ranks=(ranks - 1,), step=random.Random(f"{fp8} {mode}").randint(1, 2))
    with pytest.raises(RankFailedError):
        run(wanted, broken, num_ranks=ranks, fault=kill)
    # The row of step 3: the run stops after step 4, before its end.
    stop = At(3, partial(signal.raise_signal, signal.SIGTERM))
    codes = run_te_ranks(ranks, partial(stop_rank, wanted, broken, progress=stop, resume=True))
    assert codes == [75] * ranks
    run(wanted, broken, num_ranks=ranks, resume=True)
    for name in ("metrics", "evaluations"):
        assert rows(broken, name) == rows(whole, name)
    mine, theirs = saved(broken)[-1], saved(whole)[-1]
    assert changed(mine, theirs) == []
    assert all(np.isfinite(x).all() for x in mine[0].values())
    assert bool(scales(mine[0], ".scale_")) == (fp8 == "delayed")
