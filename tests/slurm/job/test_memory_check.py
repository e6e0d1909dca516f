"""A job whose GPUs cannot hold its experiments is warned of when it is submitted."""

import pytest
from typer.testing import CliRunner

import moescale
from moe.cost.memory_need import MemoryNeed
from slurm.job import memory_check
from tests.support.fake_cluster_user import FakeClusterUser

LARGE = (
    "model.preset=qwen3-30b-a3b", "precision.dtype=bf16", "slurm.gpus_per_node=8",
    "slurm.gpu_type=h100", "parallel.ep=2",
)  # fmt: skip


def test_state_that_does_not_fit_is_named_with_its_terms(user: FakeClusterUser) -> None:
    (line,) = user.plan(user.write("large"), sets=LARGE).warnings
    assert line.startswith("large: H100 has 85.5 GB of memory, and this run takes ")
    assert "for its state alone (gradients " in line
    assert "\n" not in line


def test_the_stage_of_most_state_is_refused_though_another_has_the_highest_peak(
    user: FakeClusterUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [
        MemoryNeed(sure={"parameters": 10**9}, modelled_bytes=200 * 10**9),
        MemoryNeed(sure={"parameters": 90 * 10**9}, modelled_bytes=100 * 10**9),
    ]
    monkeypatch.setattr(memory_check, "stage_needs", lambda *_, **__: stages)
    (line,) = user.plan(user.write("large"), sets=LARGE).warnings
    assert "this run takes 90.0 GB for its state alone" in line


def test_what_may_not_fit_is_modelled(user: FakeClusterUser) -> None:
    sets = (*LARGE, "parallel.ep=8", "train.seq_len=32768", "model.max_seq_len=32768")
    (line,) = user.plan(user.write("long"), sets=sets).warnings
    assert "at its peak (modelled): it may run out of memory" in line


@pytest.mark.parametrize(
    "sets",
    [
        (*LARGE, "slurm.gpu_type=v100"),  # of which there is no card file
        (*LARGE, "slurm.gpu_type=gb200"),
        (*LARGE, "parallel.device=cpu"),
        ("slurm.gpus_per_node=8", "slurm.gpu_type=h100"),
        (),
    ],
)
def test_what_fits_or_is_not_known_is_not_warned_of(
    user: FakeClusterUser, sets: tuple[str, ...]
) -> None:
    assert user.plan(user.write("one"), sets=sets).warnings == ()


def test_each_experiment_of_an_array_is_looked_at(user: FakeClusterUser) -> None:
    for name in ("a", "b"):
        user.write(f"sweep/{name}", steps=ord(name))
    first, second = user.plan(user.folder / "sweep", sets=LARGE).warnings
    assert (first[:3], second[:3]) == ("a: ", "b: ")


def test_the_command_says_it_beside_the_script(
    user: FakeClusterUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user.folder)
    sets = [part for override in LARGE for part in ("--set", override)]
    file = str(user.write("large"))
    done = CliRunner().invoke(moescale.app, ["slurm", "submit", file, "--dry-run", *sets])
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("moe: large: H100 has 85.5 GB of memory")
    assert done.stdout.startswith("#!")
