"""What a container sees of inputs that lie behind links."""

from pathlib import Path

import pytest

from slurm.job.cluster_profile import ClusterProfile, ProfilesFile
from slurm.job.mounts import folders_of, names_of
from tests.support.fake_cluster_user import FakeClusterUser


def test_each_name_on_the_way_is_seen(tmp_path: Path) -> None:
    (tmp_path / "far/store").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "hop").symlink_to("far")
    (tmp_path / "near/link").symlink_to(tmp_path / "hop")
    names = names_of(tmp_path / "near/link/store")
    assert names == [tmp_path / name for name in ("near/link/store", "hop/store", "far/store")]
    assert names_of(tmp_path / "missing") == [tmp_path / "missing"]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert str(tmp_path / "b") in folders_of([tmp_path / "a"])


def test_files_that_a_cache_only_links_to_are_seen(tmp_path: Path) -> None:
    """As Hugging Face's: snapshots/<commit>/* -> ../../blobs/*."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/1234").touch()
    snapshot = tmp_path / "snapshots/c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    assert folders_of([snapshot]) == (str(tmp_path / "blobs"), str(snapshot))


@pytest.mark.parametrize("runtime", ["pyxis", "apptainer"])
def test_store_and_init_behind_links_are_mounted(user: FakeClusterUser, runtime: str) -> None:
    container = {"runtime": runtime, "image": "/images/m.sqsh"}
    profile = ClusterProfile.model_validate({"container": container})
    user.profiles = ProfilesFile(default="c", profiles={"c": profile})
    elsewhere = user.folder.parent / "elsewhere"
    for name in ("store", "base"):
        (elsewhere / name).mkdir(parents=True)
        (user.folder / name).symlink_to(elsewhere / name)
    sets = ("data.store=store", "train.init=base")
    mounted = user.plan(user.write("tiny"), sets=sets).job.mounted_folders
    assert str(elsewhere / "store") in mounted
    assert str(elsewhere / "base") in mounted
