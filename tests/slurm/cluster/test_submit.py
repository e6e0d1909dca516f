"""What is submitted, what is written of it, and what is submitted again."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from typer.testing import CliRunner

import moescale
from moe.config.slurm import SlurmConfig
from slurm.cluster.client import Client
from slurm.cluster.submission_folder import all_submissions, read_submission
from slurm.cluster.submit import submit
from slurm.errors import JobError
from slurm.job.cluster_profile import ClusterProfile, ProfilesFile
from slurm.job.plan import plan_command
from tests.support.fake_cluster_user import SNAPSHOT, FakeClusterUser
from tests.support.paths import ROOT


class SlowClient(Client):
    """A cluster that takes its time to accept a job."""

    def __init__(self) -> None:
        super().__init__(pauses_s=())
        self.was_asked, self.may_answer = Event(), Event()

    def submit(self, *arguments: Any, **options: Any) -> str:
        self.was_asked.set()
        assert self.may_answer.wait(60)
        return super().submit(*arguments, **options)


def test_one_file_is_one_job(user: FakeClusterUser) -> None:
    plan = user.plan(user.write("tiny"))
    user.fake.answer("sbatch", "17\n")
    receipt = user.submit(plan)
    assert receipt.job == "17"
    path = receipt.submission
    assert path.parent == user.runs / "slurm"
    assert path.name.startswith("tiny-")
    assert user.fake.calls("sbatch") == [["--parsable", str(path / "job.sh")]]
    (task,) = read_submission(path).tasks
    assert task.command[:2] == ("train", task.experiment)
    assert task.command[2:] == ("--run-dir", task.run_dir, "--resume")
    assert Path(task.experiment or "").read_text().startswith('name = "tiny"')
    description = json.loads((path / "job.json").read_text())
    assert description["code"] == {"tree": SNAPSHOT.tree, "commit": "c0ffee", "dirty": True}
    assert read_submission(path).submitted_jobs() == [("17", frozenset({0}))]


def test_files_or_a_folder_are_one_array(user: FakeClusterUser) -> None:
    files = [user.write(f"sweep/{name}", steps=steps) for name, steps in (("a", 3), ("b", 4))]
    files[0].with_name(".#a.toml").symlink_to("an.editor's.lock")
    plan = user.plan(files[0].parent)
    assert plan.job.is_array
    assert plan.job.name == "sweep"
    assert [task.name.split("-")[0] for task in plan.tasks] == ["a", "b"]
    assert user.plan(*files).tasks == plan.tasks
    user.fake.answer("sbatch", "17\n")
    assert user.submit(plan).states == {task.name: "submitted" for task in plan.tasks}
    assert "#SBATCH --array=0-1\n" in (plan.job.job_dir / "job.sh").read_text()


def test_submitted_again_only_what_is_missing_runs(user: FakeClusterUser) -> None:
    for number in range(6):
        user.write(f"sweep/r{number}", steps=number + 1)
    plan = user.plan(user.folder / "sweep")
    user.fake.answer("sbatch", "17\n")
    user.fake.answer("sbatch", "18\n")
    user.submit(plan)
    user.finish(plan, 0, 3)
    user.fake.answer("squeue", "17_1|RUNNING|None|1:00|N/A|n1\n17_2|FAILED|None|0:00|N/A|n1\n")
    receipt = user.submit(plan)
    assert user.fake.calls("sbatch")[-1][1] == "--array=2,4-5"
    assert list(receipt.states.values()) == [
        "finished", "queued", "submitted", "finished", "submitted", "submitted",
    ]  # fmt: skip
    assert read_submission(plan.job.job_dir).job_ids(2) == ["17_2", "18_2"]


def test_nothing_is_submitted_where_nothing_is_missing(user: FakeClusterUser) -> None:
    plan = user.plan(user.write("tiny"))
    user.finish(plan, 0)
    receipt = user.submit(plan)
    assert receipt.job is None
    assert not user.fake.calls("sbatch")
    assert not plan.job.job_dir.exists()


def test_larger_sweep_leaves_alone_what_a_smaller_one_did(user: FakeClusterUser) -> None:
    user.write("sweep/a", steps=1)
    small = user.plan(user.folder / "sweep")
    user.fake.answer("sbatch", "17\n")
    user.fake.answer("sbatch", "18\n")
    user.submit(small)
    user.write("sweep/b", steps=2)
    user.write("sweep/c", steps=3)
    large = user.plan(user.folder / "sweep")
    user.fake.answer("squeue", "17_0|PENDING|Priority|1:00|N/A|\n")
    receipt = user.submit(large)
    assert receipt.submission != small.job.job_dir
    assert list(receipt.states.values()) == ["queued", "submitted", "submitted"]
    assert user.fake.calls("sbatch")[-1][1] == "--array=1-2"


def test_throttle_holds_for_what_is_submitted_again(user: FakeClusterUser) -> None:
    user.write("sweep/a", steps=1)
    user.write("sweep/b", steps=2, more="slurm.max_parallel = 3\n")
    plan = user.plan(user.folder / "sweep", sets=("slurm.max_parallel=3",))
    user.fake.answer("sbatch", "17\n")
    user.finish(plan, 0)
    user.submit(plan)
    assert user.fake.calls("sbatch")[0][1] == "--array=1%3"


def test_refused_job_leaves_nothing_behind(user: FakeClusterUser) -> None:
    plan = user.plan(user.write("tiny"))
    user.fake.answer("sbatch", stderr="sbatch: error: Invalid qos specification\n", code=1)
    with pytest.raises(JobError, match=r"slurm\.qos"):
        user.submit(plan)
    assert [path.name for path in (user.runs / "slurm").iterdir()] == [".lock"]


def test_half_written_submission_is_none(user: FakeClusterUser) -> None:
    user.fake.answer("sbatch", "17\n")
    receipt = user.submit(user.plan(user.write("tiny")))
    shutil.copytree(receipt.submission, user.runs / "slurm" / ".partial-abc")
    (user.runs / "slurm" / "gone").mkdir()
    (user.runs / "slurm" / "gone" / "job.json").symlink_to("deleted since it was listed")
    assert [one.path for one in all_submissions(user.runs)] == [receipt.submission]


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a b")], ids=["equal", "overlapping"])
def test_submissions_at_once_queue_each_run_once(
    user: FakeClusterUser, paths: tuple[str, str]
) -> None:
    """The other command comes while this one waits for the cluster's answer."""
    plans = [user.plan(*(user.write(name) for name in names.split())) for names in paths]
    user.fake.answer("sbatch", "17\n")
    user.fake.answer("sbatch", "18\n")
    user.fake.answer("squeue", "17|PENDING|Priority|1:00|N/A|\n")
    slow = SlowClient()
    with ThreadPoolExecutor() as commands:
        receipts = [commands.submit(submit, plans[0], SNAPSHOT, slow, {})]
        assert slow.was_asked.wait(60)
        receipts.append(commands.submit(user.submit, plans[1]))
        time.sleep(0.2)
        slow.may_answer.set()
        states = [list(receipt.result().states.values()) for receipt in receipts]
    assert states == [["submitted"], ["queued", "submitted"][: len(plans[1].tasks)]]


def test_refused_second_submission_keeps_the_first(user: FakeClusterUser) -> None:
    plan = user.plan(user.write("tiny"))
    user.fake.answer("sbatch", "17\n")
    user.fake.answer("sbatch", stderr="sbatch: error: Invalid qos specification\n", code=1)
    user.submit(plan)
    with pytest.raises(JobError):
        user.submit(plan)
    assert read_submission(plan.job.job_dir).job_ids(0) == ["17"]


def test_array_longer_than_the_cluster_allows_is_refused(user: FakeClusterUser) -> None:
    for number in range(3):
        user.write(f"sweep/r{number}", steps=number + 1)
    user.fake.answer("scontrol", "MaxArraySize            = 2\n")
    with pytest.raises(JobError, match="3 tasks exceed the cluster's MaxArraySize=2"):
        user.submit(user.plan(user.folder / "sweep"))
    assert not user.fake.calls("sbatch")


def test_secrets_go_through_a_file_of_ones_own(user: FakeClusterUser) -> None:
    value = "s3cr3t 'quoted' $HOME"
    user.profiles = ProfilesFile(default="a", profiles={"a": ClusterProfile(secrets=("MY_KEY",))})
    plan = user.plan(user.write("tiny"))
    with pytest.raises(JobError, match="secret MY_KEY is not set"):
        user.submit(plan)
    user.environment = {"MY_KEY": value}
    user.fake.answer("sbatch", "17\n")
    path = user.submit(plan).submission
    assert stat.S_IMODE((path / "secrets").stat().st_mode) == 0o600
    assert (path / "secrets").read_text() == "export MY_KEY='s3cr3t '\"'\"'quoted'\"'\"' $HOME'\n"
    others = [file for file in path.rglob("*") if file.is_file() and file.name != "secrets"]
    assert others
    assert not [file for file in others if "s3cr3t" in file.read_text()]
    assert not [word for call in user.fake.calls("sbatch") for word in call if "s3cr3t" in word]
    assert "s3cr3t" not in "".join(user.fake.environment("sbatch").values())


def test_commands_are_arrays_too(user: FakeClusterUser) -> None:
    words = ["data", "build", "my docs", "--shard", "{task}/{tasks}"]
    plan = plan_command(words, 3, SlurmConfig(), ProfilesFile(), user.paths())
    assert [command[-1] for command in plan.job.commands] == ["1/3", "2/3", "3/3"]
    assert plan.job.name == "data-build"
    user.fake.answer("sbatch", "17\n")
    user.submit(plan)
    assert (plan.job.job_dir / "commands").read_text().splitlines()[0] == (
        "data build 'my docs' --shard 1/3"
    )
    end = plan.job.job_dir / "tasks" / "1" / "attempt-1"
    end.mkdir(parents=True)
    (end / "begin").write_text('{"job": "17_1", "restart": 0, "nodes": "n1", "began": 5}')
    (end / "end").write_text('{"outcome": "finished", "exit_code": 0, "ended": 9}')
    assert list(user.submit(plan).states.values()) == ["submitted", "finished", "submitted"]


def test_folder_that_cannot_be_written_is_one_line(user: FakeClusterUser) -> None:
    user.runs.write_text("a file")
    done = CliRunner().invoke(
        moescale.app,
        ["slurm", "submit", str(user.write("tiny")), "--runs-dir", str(user.runs)],
    )
    assert isinstance(done.exception, JobError)
    assert "Not a directory" in str(done.exception)


def test_login_node_needs_no_torch(user: FakeClusterUser) -> None:
    """Nor what else only compute nodes have: importing any of it fails here."""
    user.write("tiny")
    absent = ("torch", "megatron", "numpy", "pyarrow", "tokenizers", "safetensors")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); import moescale; moescale.main()"
    )
    argv = [sys.executable, "-c", code, "slurm", "submit", "tiny.toml", "--dry-run"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        argv, cwd=user.folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=tiny\n")
