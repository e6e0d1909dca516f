"""Checkpoints: any layout reads any other's; damage is named."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.checkpoint.index import write_index
from moe.config.experiment import Experiment
from tests.support.checkpoint_content import checkpoint_content
from tests.support.distributed import RankFailedError, run_ranks
from tests.support.layout_equivalence import Shard, assemble, make, shards, started

pytestmark = pytest.mark.engine

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "tp2": (2, {"tp": 2}),
    "pp2": (2, {"pp": 2}),
    "ep2": (2, {"ep": 2}),
    "dp2": (2, {}),
    "tp2_ep2": (4, {"tp": 2, "ep": 2}),
    "pp2_ep2": (4, {"pp": 2, "ep": 2}),
    "pp2_vpp2": (2, {"pp": 2, "vpp": 2}),
    "etp2_uneven_pp2": (4, {"tp": 2, "etp": 2, "pp": 2, "stage_layers": [1, 3]}),
}
SAVED_AT, LATER_STEPS = 2, 2
TRAIN = {"steps": 8, "warmup_steps": 1}


def _save(experiment: Experiment, root: Path, later_steps: int = 0) -> list[float]:
    """Train, save, and train `later_steps` more; returns their losses."""
    from moe.checkpoint.training_state import save_checkpoint
    from moe.training.step import train_step

    with started(experiment) as trainer:
        for index in range(SAVED_AT):
            train_step(trainer, index)
        state = {"data": trainer.loader.state_dict()}
        save_checkpoint(root, SAVED_AT, trainer.chunks, trainer.optimizer, state, 2)
        return [train_step(trainer, SAVED_AT + index).loss for index in range(later_steps)]


def _load(experiment: Experiment, path: Path, copy: Path) -> tuple[list[Shard], list[float]]:
    """Load and save again at once; returns parameters and the losses of later steps."""
    from moe.checkpoint.training_state import load_checkpoint, save_checkpoint
    from moe.training.step import train_step

    with started(experiment) as trainer:
        state = load_checkpoint(path, trainer.chunks, trainer.optimizer)
        trainer.loader.load_state_dict(state["data"])
        parts = shards(trainer.chunks)
        save_checkpoint(copy, state["step"], trainer.chunks, trainer.optimizer, {}, 2)
        later = (train_step(trainer, state["step"] + index) for index in range(LATER_STEPS))
        return parts, [step.loss for step in later]


@pytest.fixture(scope="module")
def saved(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every layout."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, (num_ranks, layout) in LAYOUTS.items():
        run_ranks(num_ranks, _save, make(store, layout, train=TRAIN), root / name)
    return {name: root / name / f"step-{SAVED_AT:08d}" for name in LAYOUTS}


@pytest.fixture(scope="module")
def never_changed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Losses after the save of a run that stays one process."""
    root = tmp_path_factory.mktemp("one")
    losses: list[float] = run_ranks(1, _save, make(store, train=TRAIN), root, LATER_STEPS)[0]
    return losses


def test_every_layout_saves_the_same_model_and_optimizer(saved: dict[str, Path]) -> None:
    expected = checkpoint_content(saved["one"])
    assert any(key.endswith("exp_avg_sq") or ".exp_avg_sq" in key for key in expected)
    for name, path in saved.items():
        content = checkpoint_content(path)
        assert content.keys() == expected.keys(), name
        for key, values in content.items():
            scale = np.abs(expected[key]).max().clip(1e-12)
            # AdamW divides rounding noise by small gradients: 1.2e-4 on some processors.
            np.testing.assert_allclose(values, expected[key], atol=3e-4 * scale, err_msg=key)


@pytest.mark.parametrize(("source", "target"), list(pairwise([*LAYOUTS, "one"])))
def test_resharded_run_goes_on(
    source: str,
    target: str,
    saved: dict[str, Path],
    never_changed: list[float],
    store: Path,
    tmp_path: Path,
) -> None:
    """What a layout loads and saves again is what was stored; its later losses are the same."""
    num_ranks, layout = LAYOUTS[target]
    experiment = make(store, layout, train=TRAIN)
    ranks = run_ranks(num_ranks, _load, experiment, saved[source], tmp_path)
    stored, again = (
        checkpoint_content(saved[source]),
        checkpoint_content(tmp_path / f"step-{SAVED_AT:08d}"),
    )
    assert stored.keys() == again.keys()
    assert all(np.array_equal(stored[key], again[key]) for key in stored)
    assemble([parts for parts, _ in ranks])
    for _, losses in ranks:
        assert len(losses) == LATER_STEPS
        np.testing.assert_allclose(losses, never_changed, rtol=1e-5)


def _copied(checkpoint: Path, target: Path) -> Path:
    target.mkdir()
    for file in checkpoint.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def _flip_a_bit(checkpoint: Path) -> str:
    file = checkpoint / "rank-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    return "rank-00000.safetensors: missing or damaged"


def _truncate(checkpoint: Path) -> str:
    file = checkpoint / "rank-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return "rank-00000.safetensors: missing or damaged"


def _remove_file(checkpoint: Path) -> str:
    (checkpoint / "rank-00000.safetensors").unlink()
    return "rank-00000.safetensors: missing or damaged"


def _cut_index(checkpoint: Path) -> str:
    (checkpoint / "index.json").write_text('{"format": 1, ')
    return "index.json: missing or damaged"


def _newer_format(checkpoint: Path) -> str:
    index = json.loads((checkpoint / "index.json").read_text())
    (checkpoint / "index.json").write_text(json.dumps(index | {"format": 99}))
    return "index.json: format 99"


def _remove_tensor(checkpoint: Path) -> str:
    return _edit_parts(checkpoint, lambda parts: parts[:-1], "the checkpoint has no tensor ")


def _edit_parts(checkpoint: Path, edit: Any, message: str) -> str:
    index = json.loads((checkpoint / "index.json").read_text())
    key = "decoder.final_layernorm.weight"
    named = [part for part in index["parts"] if part["key"] == key]
    rest = [part for part in index["parts"] if part["key"] != key]
    index["parts"] = rest + edit(named)
    write_index(checkpoint, index)
    return message + key


def _edit_index(checkpoint: Path) -> str:
    text = (checkpoint / "index.json").read_text()
    (checkpoint / "index.json").write_text(text.replace('"name": "1"', '"name": "2"', 1))
    return "index.json: missing or damaged: its content does not match its checksum"


def _edit_state(checkpoint: Path) -> str:
    text = (checkpoint / "state.json").read_text()
    (checkpoint / "state.json").write_text(text.replace(f'"step": {SAVED_AT}', '"step": 9'))
    return "state.json: missing or damaged"


def _other_shape(checkpoint: Path) -> str:
    def edit(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [part | {"whole": [33]} for part in parts]

    return _edit_parts(checkpoint, edit, "tensor ") + r" is \[33\] in the checkpoint and \[32\]"


@pytest.mark.parametrize(
    "damage", [_flip_a_bit, _truncate, _remove_file, _cut_index, _newer_format, _edit_index,
               _edit_state, _remove_tensor, _other_shape],
)  # fmt: skip
def test_damage_is_named(damage: Any, saved: dict[str, Path], store: Path, tmp_path: Path) -> None:
    checkpoint = _copied(saved["one"], tmp_path / "damaged")
    message = damage(checkpoint)
    experiment = make(store, train=TRAIN)
    with pytest.raises(RankFailedError, match=f"ConfigError: .*{message}"):
        run_ranks(1, _load, experiment, checkpoint, tmp_path / "copy")
