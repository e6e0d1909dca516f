"""Secrets' files are there while runs need them, and no longer."""

from pathlib import Path

import pytest

from slurm.cluster.client import Client
from slurm.cluster.control import cancel_tasks, requeue_tasks
from slurm.cluster.submission_folder import Submission, read_submission
from slurm.errors import JobError
from slurm.job.cluster_profile import ClusterProfile, ProfilesFile
from tests.support.fake_cluster_user import FakeClusterUser


@pytest.fixture
def submission(user: FakeClusterUser) -> Submission:
    """A submitted run with a secret."""
    user.profiles = ProfilesFile(default="a", profiles={"a": ClusterProfile(secrets=("MY_KEY",))})
    user.environment = {"MY_KEY": "k"}
    user.fake.answer("sbatch", "17\n")
    user.fake.answer("sbatch", "18\n")
    return read_submission(user.submit(user.plan(user.write("tiny"))).submission)


def secrets(submission: Submission) -> Path:
    return submission.path / "secrets"


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_next_submission_removes_what_ended_runs_left(
    user: FakeClusterUser, submission: Submission, state: str
) -> None:
    """A batch shell that was killed removes nothing."""
    other = user.plan(user.write("other", steps=9))
    user.fake.answer("squeue", f"17|{state}|None|1:00|N/A|\n")
    user.submit(other)
    assert secrets(submission).exists()
    user.fake.answer("squeue", "17|FAILED|None|0:00|N/A|\n")
    user.fake.answer("squeue", "17|FAILED|None|0:00|N/A|\n")
    user.submit(other)
    assert not secrets(submission).exists()


def test_file_of_another_cluster_s_job_stays(user: FakeClusterUser, submission: Submission) -> None:
    (submission.path / "jobs").unlink()
    submission.record_job("17", "0", 5, "alpha")
    user.fake.answer("scontrol", "ClusterName = beta\n")
    user.client = Client(pauses_s=(), sleep=lambda _: None)
    user.fake.answer("squeue", "")
    user.submit(user.plan(user.write("other", steps=9)))
    assert secrets(submission).exists()


def test_cancelled_before_it_ran_leaves_none(user: FakeClusterUser, submission: Submission) -> None:
    user.fake.answer("squeue", "17|PENDING|Priority|1:00|N/A|\n")
    cancel_tasks(submission, None, user.client)
    assert not secrets(submission).exists()


def test_requeue_writes_them_anew(user: FakeClusterUser, submission: Submission) -> None:
    secrets(submission).unlink()
    with pytest.raises(JobError, match="secret MY_KEY is not set in this shell"):
        requeue_tasks(submission, None, user.client, {})
    assert len(user.fake.calls("sbatch")) == 1
    (submission.task_dir(0)).mkdir(parents=True)
    (submission.task_dir(0) / "ended").touch()
    requeue_tasks(submission, None, user.client, {"MY_KEY": "new"})
    assert secrets(submission).read_text() == "export MY_KEY=new\n"
    assert secrets(submission).stat().st_mode & 0o777 == 0o600
    assert not (submission.task_dir(0) / "ended").exists()
