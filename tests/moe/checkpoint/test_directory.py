"""A run's checkpoints: whose names count, what is cleaned, what readers meet meanwhile."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from moe.checkpoint.directory import (
    begin,
    checkpoint_name,
    complete,
    complete_checkpoints,
    find_checkpoint,
    remove_old,
    set_aside_after,
    step_of,
    use_checkpoint,
)
from moe.checkpoint.index import read_index, verify_files, write_index, write_tensors
from moe.config.experiment import Experiment, make_experiment
from moe.errors import ConfigError, StorageError
from moe.training.startup.acquire import acquire_run


def checkpoint(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "state.json").write_text(json.dumps({"step": 0}))
    write_index(path, {"format": 1, "common": {}, "files": {}, "parts": []})
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path / "checkpoints" / checkpoint_name(step))
    return tmp_path / "checkpoints"


def steps(root: Path) -> list[int]:
    return [step_of(path) for path in complete_checkpoints(root)]


def test_a_copy_under_another_name_is_the_user_s(root: Path) -> None:
    copy = checkpoint(root / "step-00000001.good")
    checkpoint(root / "step-00000009.good")
    remove_old(root, keep=2, keep_every=3)
    set_aside_after(root, 3)
    assert copy.is_dir() and steps(root) == [3]
    assert find_checkpoint(copy) == copy


def test_what_killed_writers_left_is_cleaned(root: Path) -> None:
    for name in (".step-00000002.partial", ".step-00000003.old", ".step-00000007.partial"):
        (root / name).mkdir()
    (root / "step-00000004").rename(root / ".step-00000004.old")
    begin(root, 5)
    assert steps(root) == [1, 2, 3, 4]
    assert [path.name for path in root.glob(".*")] == [".step-00000005.partial"]


NAMES = [*map(checkpoint_name, (1, 2, 3, 4))]
LEFT = [".step-00000005.partial", ".step-00000002.old", "set-aside-step-00000004"]


@pytest.mark.parametrize("is_gone", [False, True])
@pytest.mark.parametrize("linked", [NAMES, LEFT, [NAMES[3]], [*NAMES, *LEFT]])
def test_of_a_link_the_link_alone_is_removed(
    linked: list[str], is_gone: bool, tmp_path: Path
) -> None:
    """Checkpoints, or what killed writers left, moved to an archive and linked back."""
    root, archive = tmp_path / "checkpoints", tmp_path / "archive"
    root.mkdir()
    for name in (*NAMES, *LEFT):
        checkpoint((archive if name in linked else root) / name)
    if is_gone:
        shutil.rmtree(archive)
    for name in linked:
        (root / name).symlink_to(archive / name)
    found, stored = steps(root), sorted(archive.rglob("*"))
    set_aside_after(root, 3)
    assert steps(root) == [step for step in found if step <= 3]
    for step in (5, 3):  # there is a step 3: a checkpoint, a link to one, or one that leads nowhere
        begin(root, step)
        complete(root, step, {}, {"format": 1, "common": {}, "files": {}, "parts": []})
    remove_old(root, keep=2, keep_every=None)
    assert steps(root) == [3, 5]
    assert not list(root.glob(".step-*"))
    assert sorted(archive.rglob("*")) == stored


def test_a_removal_cut_short_leaves_no_half_checkpoint(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed before the first file
        remove_old(root, keep=1, keep_every=None)
    assert steps(root) == [4]
    begin(root, 5)
    assert len(list(root.glob(".*"))) == 1


def test_a_checkpoint_removed_meanwhile_is_the_newest_instead(root: Path) -> None:
    def use(found: Path) -> int:
        if step_of(found) > gone_after:
            shutil.rmtree(found)
        read_index(found)
        return step_of(found)

    gone_after = 3
    assert use_checkpoint(root.parent, None, use) == 3
    with pytest.raises(ConfigError, match="no checkpoint of step 4: there are 1, 2, 3"):
        use_checkpoint(root.parent, 4, use)
    gone_after = 0
    with pytest.raises(ConfigError, match=r"step-00000001/index\.json: missing"):
        use_checkpoint(root.parent, None, use)
    assert steps(root) == []
    (checkpoint(root / checkpoint_name(1)) / "index.json").unlink()
    gone_after = 1
    with pytest.raises(ConfigError, match=r"step-00000001/index\.json: missing"):
        use_checkpoint(root.parent, None, use)


@pytest.mark.parametrize("mode", [0o775, 0o700])
def test_who_may_read_the_folder_may_read_its_tensors(mode: int, root: Path) -> None:
    root.chmod(mode)
    write_tensors(root / "rank-00000.safetensors", {"0": torch.zeros(1)})
    assert (root / "rank-00000.safetensors").stat().st_mode & 0o777 == mode & 0o666


def test_a_file_that_vanishes_while_it_is_verified_is_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / checkpoint_name(1)
    write_index(path, {"format": 1, "common": {}, "files": {"state.json": "0" * 64}, "parts": []})
    monkeypatch.setattr("moe.checkpoint.index.file_sha256", refuse)
    with pytest.raises(ConfigError, match=r"state\.json: missing or damaged"):
        verify_files(path)


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rank-00000.safetensors")


class Ranks:
    """Rank 0 of two."""

    is_main, world_size = True, 2


def experiment() -> Experiment:
    train = {"steps": 1, "seq_len": 8, "global_batch_size": 1}
    return make_experiment({"model": {"preset": "tiny"}, "train": train})


@pytest.mark.parametrize(
    "place", ["moe.runs.directory.write_text", "moe.training.startup.acquire.checkpoint_to_resume"]
)
def test_a_run_directory_that_fails_ends_every_rank_in_one_line(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(dist, "get_world_size", lambda: Ranks.world_size)
    monkeypatch.setattr(dist, "new_group", lambda **_: "storage")
    monkeypatch.setattr(dist, "broadcast_object_list", lambda objects, group: told.extend(objects))
    monkeypatch.setattr(dist, "destroy_process_group", lambda _: None)
    monkeypatch.setattr(place, refuse)
    with pytest.raises(StorageError, match="No space left on device: make room or") as caught:
        acquire_run(tmp_path / "run", experiment(), Ranks(), False, None)  # type: ignore[arg-type]
    assert str(told[0]) == str(caught.value)
