"""From files and commands to jobs: what is planned, and what is refused before it is queued."""

import pytest
from typer.testing import CliRunner

import moescale
from moe.config.slurm import SlurmConfig
from moe.errors import ConfigError
from slurm.errors import JobError
from slurm.job.plan import slurm_section
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


def test_folder_of_one_file_is_still_an_array(user: FakeClusterUser) -> None:
    assert user.plan(user.write("sweep/a").parent).job.is_array


def test_what_training_depends_on_names_the_run_not_what_the_cluster_gives(
    user: FakeClusterUser,
) -> None:
    file = user.write("tiny")
    first, second = user.plan(file), user.plan(file, sets=("slurm.partition=big",))
    assert first.tasks[0].run_dir == second.tasks[0].run_dir
    assert first.job.job_dir != second.job.job_dir
    assert user.plan(file) == first


@pytest.mark.parametrize(
    ("sets", "complaint"),
    [
        (("slurm.nodes=3",), "global_batch_size=8"),
        (("parallel.tp=2",), "slurm.nodes=1 * 1 ranks on each = 1 ranks"),
        (("parallel.device=cuda",), "slurm.gpus_per_node"),
        (("slurm.gpus_per_node=2", "slurm.processes_per_node=4"), "exceeds slurm.gpus_per_node=2"),
        (
            (
                "precision.kernels=te",
                "precision.dtype=bf16",
                "precision.fp8=mxfp8",
                "train.seq_len=24",
                "train.micro_batch_size=1",
            ),
            'precision.fp8 = "mxfp8": seq_len * micro_batch_size / cp = 24 is not a multiple of 32',
        ),
    ],
)
def test_layout_nodes_and_gpus_are_checked_against_each_other(
    user: FakeClusterUser, sets: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(JobError) as error:
        user.plan(user.write("tiny"), sets=sets)
    assert complaint in str(error.value)


def test_elastic_run_names_only_nodes_that_fit(user: FakeClusterUser) -> None:
    """A batch of 8 stands on 1, 2 and 4 nodes, not on 3."""
    plan = user.plan(user.write("tiny"), sets=("slurm.nodes=4", "slurm.min_nodes=1"))
    assert plan.job.node_counts == (1, 2, 4)


def test_one_array_has_one_slurm_section(user: FakeClusterUser) -> None:
    user.write("sweep/a", steps=1)
    user.write("sweep/b", steps=2, more="slurm.nodes = 2\n")
    with pytest.raises(JobError, match=r"slurm\.nodes is 1 in .*a\.toml but 2 in .*b\.toml"):
        user.plan(user.folder / "sweep")
    assert user.plan(user.folder / "sweep", sets=("slurm.nodes=2",)).job.config.nodes == 2


def test_same_experiment_twice_is_refused(user: FakeClusterUser) -> None:
    user.write("sweep/a")
    (user.folder / "sweep" / "b.toml").write_text((user.folder / "sweep" / "a.toml").read_text())
    with pytest.raises(JobError, match=r"b\.toml: the same experiment as .*a\.toml"):
        user.plan(user.folder / "sweep")


def test_empty_folder_is_told(user: FakeClusterUser) -> None:
    (user.folder / "none").mkdir()
    with pytest.raises(JobError, match=r"no \*\.toml experiments"):
        user.plan(user.folder / "none")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("dta build", "no command 'dta' (there: "),
        ("data", "no command '' (there: build, "),
        ("data build docs -o s --shrd {task}/{tasks}", "No such option: --shrd"),
        ("data build docs -o", "Option '-o' requires an argument"),
        ("data build docs -o s --workers {task}x", "Invalid value for '--workers'"),
    ],
)
def test_command_is_checked_before_it_is_queued(
    user: FakeClusterUser, words: str, complaint: str
) -> None:
    done = CliRunner().invoke(moescale.app, ["slurm", "run", "--dry-run", "--", *words.split()])
    assert isinstance(done.exception, JobError)
    assert complaint in str(done.exception)


def test_right_command_passes_unrun(user: FakeClusterUser) -> None:
    words = "data build docs -o s --shard {task}/{tasks}"
    argv = ["slurm", "run", "--tasks", "3", "--dry-run", "--", *words.split()]
    done = CliRunner().invoke(moescale.app, argv)
    assert done.exception is None
    assert "#SBATCH --array=0-2\n" in done.stdout


def test_slurm_section_of_a_command(user: FakeClusterUser) -> None:
    file = user.write("tiny", more='[slurm]\npartition = "cpu"\nnodes = 2\n')
    assert slurm_section(file, ["slurm.nodes=3"]) == SlurmConfig(partition="cpu", nodes=3)
    with pytest.raises(JobError, match=r"only slurm\.\* keys"):
        slurm_section(None, ["train.steps=3"])


def test_power_samples_are_looked_at_before_a_job_waits_for_them(user: FakeClusterUser) -> None:
    path = user.write("metered", more='energy = {source = "csv", power_csv = "pdu.csv"}\n')
    with pytest.raises(ConfigError, match=r"energy.power_csv = .*pdu.csv: No such file"):
        user.plan(path)
    (user.folder / "pdu.csv").write_text("time,watts\n")
    user.plan(path)
