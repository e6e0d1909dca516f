"""Delayed scaling of Transformer Engine in checkpoints: tensors, and nothing that is unpickled."""

import io
import json
import pickle
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.storage.checksums import file_sha256
from moe.checkpoint.index import INDEX, write_index, write_tensors
from tests.support.checkpoint_content import checkpoint_content
from tests.support.fault_injection import rows
from tests.support.layout_equivalence import FullTensors, started
from tests.support.trained_runs import command
from tests.support.transformer_engine.ranks import run_te_ranks
from tests.support.transformer_engine.runs import SAVED_AT, STEPS, Job, experiment, train_all

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
MODULE = "decoder.layers.0.self_attention.linear_qkv"


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")

    def run_in(fp8: str, **layout: Any) -> Any:
        return experiment(store, "te", layout, dtype="bf16", fp8=fp8)

    for begun in (None, root / "ep2"):
        name = "ep2" if begun is None else "ep2_ep2"
        train_all([Job(run_in("delayed", ep=2), root / name, begun)], num_ranks=2)
    train_all(
        [
            Job(run_in("delayed"), root / "ep2_one", root / "ep2"),
            Job(run_in("current"), root / "ep2_current", root / "ep2"),
            Job(run_in("delayed"), root / "current_delayed", root / "ep2_current"),
        ]
    )
    return root


def content(run: Path, step: int = STEPS) -> FullTensors:
    return checkpoint_content(run / f"checkpoints/step-{step:08d}")


def scales(tensors: FullTensors) -> FullTensors:
    return {key: value for key, value in tensors.items() if key.startswith("fp8.")}


def test_resumed_equals_uninterrupted(runs: Path) -> None:
    whole, resumed = content(runs / "ep2"), content(runs / "ep2_ep2")
    assert whole.keys() == resumed.keys()
    assert [key for key in whole if not np.array_equal(whole[key], resumed[key])] == []
    experts = "fp8.decoder.layers.1.mlp.experts.experts.linear_fc1."
    assert whole[f"{experts}scale_fwd"].shape == (4, 3)
    assert whole[f"{experts}amax_history_bwd"].shape == (4, 1, 2)
    assert len(scales(whole)) == 4 * 10


def _saved_amaxes(wanted: Any) -> set[float]:
    """Return what this rank saves of amaxes that are unlike on all ranks."""
    from moe.checkpoint.training_state import snapshot
    from moe.training.step import train_step

    with started(wanted) as trainer:
        train_step(trainer, 0)
        for module in trainer.chunks[0].module.modules():
            for meta in getattr(module, "fp8_meta", {}).values():
                if hasattr(meta, "amax_history"):
                    meta.amax_history[0] = trainer.engine.rank + 1.0
        saved = snapshot(trainer.chunks, trainer.optimizer)
        keys = {shard.name: shard.key for shard in saved.shards}
        histories = [x for name, x in saved.tensors.items() if ".amax_history_" in keys[name]]
        return {value for history in histories for value in history.flatten().tolist()}


def test_amaxes_since_the_last_update_are_the_largest_of_all_ranks(store: Path) -> None:
    """The next update would reduce them."""
    wanted = experiment(store, "te", {"ep": 2}, dtype="bf16", fp8="delayed")
    assert run_te_ranks(2, _saved_amaxes, wanted) == [{2.0}, {2.0}]


def test_another_layout_takes_the_scales(runs: Path) -> None:
    wanted, losses = ([row["loss"] for row in rows(runs / x)] for x in ("ep2", "ep2_one"))
    assert losses == pytest.approx(wanted[SAVED_AT:], rel=1e-3)
    assert scales(content(runs / "ep2_one")).keys() == scales(content(runs / "ep2")).keys()


def test_recipes_without_state_save_none_and_delayed_begins_anew(runs: Path) -> None:
    assert scales(content(runs / "ep2_current")) == {}
    assert scales(content(runs / "current_delayed"))


def test_files_cut_for_another_layout_keep_the_scales(runs: Path, tmp_path: Path) -> None:
    code, _, said = command(
        "convert", "reshard", runs / "ep2", "-o", tmp_path / "out", "--ranks", "2", "--set",
        "parallel.tp=2",
    )  # fmt: skip
    assert code == 0, said
    before, after = content(runs / "ep2"), content(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def _load_hostile(wanted: Any, checkpoint: Path, file: Path) -> str:
    """Load a checkpoint with pickled state, and give a module such state; returns what is said."""
    from moe.checkpoint.training_state import load_checkpoint

    state = torch.frombuffer(bytearray(pickle.dumps(Hostile(file))), dtype=torch.uint8)
    index = json.loads((checkpoint / INDEX).read_text())
    write_tensors(checkpoint / "extra.safetensors", {"0": state})
    [size] = state.shape
    index["parts"] += [
        {"key": f"{MODULE}._extra_state/shard_0_1", "whole": [size], "offset": [0],
         "shape": [size], "file": "extra.safetensors", "name": "0"}
    ]  # fmt: skip
    index["files"]["extra.safetensors"] = file_sha256(checkpoint / "extra.safetensors")
    del index["checksum"]
    write_index(checkpoint, index)
    with started(wanted) as trainer, redirect_stderr(io.StringIO()) as said:
        load_checkpoint(checkpoint, trainer.chunks, trainer.optimizer)
        trainer.chunks[0].module.get_submodule(MODULE).set_extra_state(state)
    return said.getvalue()


def test_pickled_state_is_named_and_never_read(runs: Path, store: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-00000004"
    shutil.copytree(runs / "ep2_one/checkpoints/step-00000004", checkpoint)
    wanted = experiment(store, "te", dtype="bf16", fp8="delayed")
    said = run_te_ranks(1, _load_hostile, wanted, checkpoint, tmp_path / "loaded")[0]
    assert f"{checkpoint}: {MODULE}._extra_state/shard_0_1 and others like it are pickled" in said
    assert not (tmp_path / "loaded").exists()
