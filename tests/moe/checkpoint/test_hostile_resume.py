"""A run resumed from a checkpoint with any value in it: it goes on, or one line says why not."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from moe.config.experiment import Experiment
from tests.support.distributed import run_ranks
from tests.support.hostile_json import mutations
from tests.support.layout_equivalence import make, started

pytestmark = pytest.mark.engine
SMALL = {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "ffn_hidden_size": 16}
SPARSE = {"num_experts": 2, "top_k": 1, "normalize_top_k": False, "expert_ffn_hidden_size": 16,
          "first_dense_layers": 1}  # fmt: skip


def resume_from_anything(experiment: Experiment, root: Path) -> list[str]:
    """Resume from mutations of a checkpoint; returns what was refused, and how."""
    from data.errors import InputError
    from moe.checkpoint.agreement import check_agreement
    from moe.checkpoint.directory import read_state
    from moe.checkpoint.index import write_index
    from moe.checkpoint.state_format import RUN_KEYS
    from moe.checkpoint.training_state import load_checkpoint, save_checkpoint
    from moe.training.logs.totals import RunTotals
    from moe.training.step import train_step

    refusals: list[str] = []
    with started(experiment) as trainer:
        train_step(trainer, 0)
        totals = RunTotals(step=1, tokens=8, stream_hash="a", train_time_s=1.0)
        state = {**totals.as_checkpoint_state(), **trainer.state()}
        path = save_checkpoint(root, 1, trainer.chunks, trainer.optimizer, state, 1)
        index, values = (json.loads((path / f"{n}.json").read_text()) for n in ("index", "state"))

        def resume(index: Any, values: Any) -> None:
            (path / "state.json").write_text(json.dumps(values))
            digest = hashlib.sha256((path / "state.json").read_bytes()).hexdigest()
            if isinstance(index, dict):
                index.pop("checksum", None)
                if isinstance(index.get("files"), dict) and "state.json" in index["files"]:
                    index["files"]["state.json"] = digest
            write_index(path, index) if isinstance(index, dict) else (
                path / "index.json"
            ).write_text(json.dumps(index))
            try:
                check_agreement(path, read_state(path, RUN_KEYS), experiment.train)
                state = load_checkpoint(path, trainer.chunks, trainer.optimizer)
                RunTotals.from_checkpoint(state)
                trainer.load_state(state)
            except InputError as error:
                refusals.append(str(error))

        @settings(max_examples=15, derandomize=True, deadline=None, database=None)
        @given(mutations({**index, "parts": index["parts"][:2]}), mutations(values))
        def resume_mutated(other: Any, mutated: Any) -> None:
            if isinstance(other, dict) and isinstance(other.get("parts"), list):
                other["parts"] = other["parts"] + index["parts"][2:]
            resume(other, values)
            resume(index, mutated)

        resume(index, values)
        assert not refusals, refusals
        resume_mutated()
        resume(index, values)
    shutil.rmtree(root)
    return refusals


def test_any_value_in_a_checkpoint_is_resumed_from_or_refused(store: Path, tmp_path: Path) -> None:
    experiment = make(store, model={**SMALL, "num_kv_heads": None, "moe": SPARSE})
    (refusals,) = run_ranks(1, resume_from_anything, experiment, tmp_path / "checkpoints")
    assert len(refusals) > 10
    for text in refusals:
        assert len(text.splitlines()) == 1 and len(text) < 600, text
