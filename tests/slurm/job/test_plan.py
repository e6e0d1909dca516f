"""What is wrong with an array is said of each of its members."""

import pytest

from slurm.errors import JobError
from tests.support.fake_cluster_user import FakeClusterUser


def test_every_wrong_experiment_is_named(user: FakeClusterUser) -> None:
    for name, more in (("a", ""), ("b", "train.stps = 3\n"), ("c", "["), ("d", "")):
        user.write(f"sweep/{name}", steps=ord(name), more=more)
    with pytest.raises(JobError, match="2 of 4 experiments are wrong: ") as error:
        user.plan(user.folder / "sweep")
    said = str(error.value)
    assert "b.toml" in said
    assert "c.toml" in said
    assert "a.toml" not in said
    assert "\n" not in said
    for name in "bc":
        (user.folder / f"sweep/{name}.toml").unlink()
    with pytest.raises(JobError) as error:
        user.plan(user.folder / "sweep", sets=("slurm.nodes=3",))
    assert str(error.value).count("global_batch_size=8") == 2
