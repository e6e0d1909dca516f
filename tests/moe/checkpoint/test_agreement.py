"""A checkpoint whose parts disagree about how far the run was is not resumed."""

from pathlib import Path
from typing import Any

import pytest

from moe.checkpoint.agreement import check_agreement
from moe.checkpoint.index import write_index
from moe.config.train import TrainConfig
from moe.errors import ConfigError

TRAIN = TrainConfig(steps=8, seq_len=16, global_batch_size=4)
STATE: dict[str, Any] = {
    "step": 3,
    "tokens": 3 * 4 * 16,
    "rejected_steps": 1,
    "data": {"next_sample": 12, "fingerprint": "f"},
    "samples": [8, 12],
}
GROUP = {"is_expert_parallel": False, "wd_mult": 1.0, "lr_mult": 1.0, "lr": 1e-3,
         "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}  # fmt: skip


def checkpoint(folder: Path, updates: int, name: str = "step-00000003") -> Path:
    optimizer = {"optimizer": {"param_groups": [GROUP | {"step": updates}]}}
    common = {"optimizer": {"0": optimizer, "1": {}}}
    (folder / name).mkdir()
    write_index(folder / name, {"format": 1, "common": common, "files": {}, "parts": []})
    return folder / name


@pytest.mark.parametrize("updates", [0, 2, 3])
def test_parts_that_agree_are_taken(updates: int, tmp_path: Path) -> None:
    check_agreement(checkpoint(tmp_path, updates), STATE, TRAIN)
    before = {key: STATE[key] for key in ("step", "tokens", "data")}
    check_agreement(tmp_path / "step-00000003", before, TRAIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 4}, "step = 4, but the directory is that of step 3"),
        ({"tokens": 2**61}, f"tokens = {2**61}, but 3 steps have 192 positions"),
        ({"rejected_steps": 4}, "rejected_steps = 4, but the run has made 3 steps"),
        ({"samples": [8, 13]}, r"samples = \[8, 13\], but step 3 has 8 to 12"),
        (
            {"data": {"next_sample": 16}},
            "data.next_sample = 16, but 3 steps of train.global_batch_size = 4 end at 12",
        ),
    ],
)
def test_parts_that_disagree_are_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path, 2)
    with pytest.raises(ConfigError, match=rf"/step-00000003/state.json: {message}: restore"):
        check_agreement(path, STATE | changes, TRAIN)


def test_a_checkpoint_of_another_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="step = 3, but the optimizer has made 4 steps"):
        check_agreement(checkpoint(tmp_path, 4), STATE, TRAIN)
    short = TrainConfig(steps=2, seq_len=16, global_batch_size=4)
    with pytest.raises(ConfigError, match=r"step = 3, but the run has train.steps = 2"):
        check_agreement(tmp_path / "step-00000003", STATE, short)
