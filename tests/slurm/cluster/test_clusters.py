"""Two clusters that share a folder of runs number their jobs alike: each keeps to its own."""

import json
from pathlib import Path

import pytest

from slurm.cluster.client import Client
from slurm.cluster.control import cancel_tasks, requeue_tasks
from slurm.cluster.submission_folder import Submission, read_submission
from slurm.errors import JobError
from slurm.views.accounting import usages
from slurm.views.status import watch_status
from tests.support.fake_cluster_user import FakeClusterUser


def change_cluster(user: FakeClusterUser, name: str) -> None:
    """Log in elsewhere."""
    user.fake.answer("scontrol", f"ClusterName             = {name}\nMaxArraySize = 1001\n")
    user.client = Client(pauses_s=(), sleep=lambda _: None)


@pytest.fixture
def submission(user: FakeClusterUser) -> Submission:
    """Submitted as job 17 on cluster alpha; the user's job 17 on beta is another one."""
    change_cluster(user, "alpha")
    user.fake.answer("sbatch", "17\n")
    submission = read_submission(user.submit(user.plan(user.write("tiny"))).submission)
    user.fake.answer("squeue", "17|RUNNING|None|1:00|N/A|n1\n")
    return submission


def end(submission: Submission, outcome: str) -> None:
    folder = submission.task_dir(0) / "attempt-1"
    folder.mkdir(parents=True)
    begin = {"job": "17", "restart": 0, "nodes": "n1", "began": 5}
    (folder / "begin").write_text(json.dumps(begin))
    (folder / "end").write_text(json.dumps({"outcome": outcome, "ended": 65}))


def test_record_names_the_cluster(submission: Submission) -> None:
    (line,) = (submission.path / "jobs").read_text().splitlines()
    assert json.loads(line)["cluster"] == "alpha"


def test_other_cluster_s_job_of_the_same_number_is_left_alone(
    user: FakeClusterUser, submission: Submission
) -> None:
    change_cluster(user, "beta")
    said = "job 17 is of cluster alpha, and this is cluster beta"
    with pytest.raises(JobError, match=said):
        cancel_tasks(submission, None, user.client)
    with pytest.raises(JobError, match=said):
        requeue_tasks(submission, None, user.client)
    with pytest.raises(JobError, match="cancel it there first, or choose another --runs-dir"):
        user.submit(user.plan(user.write("tiny")))
    assert not user.fake.calls("scancel")
    assert ["requeue", "17"] not in user.fake.calls("scontrol")
    assert len(user.fake.calls("sbatch")) == 1
    assert not [call for call in user.fake.calls("squeue") if "--jobs=17" in call]
    assert not (submission.task_dir(0) / "cancelled").exists()


def test_status_says_where_it_is(user: FakeClusterUser, submission: Submission) -> None:
    change_cluster(user, "beta")
    ((_, (status,)),) = next(watch_status(lambda: [submission], user.client, 0))
    assert (status.state, status.reason, status.job) == ("elsewhere", "cluster alpha", "17")


def test_accounting_asks_no_other_cluster(user: FakeClusterUser, submission: Submission) -> None:
    end(submission, "finished")
    change_cluster(user, "beta")
    told: list[str] = []
    source, (usage,) = usages(submission, user.client, told.append)
    assert (source, usage.elapsed_s) == ("attempts", 60)
    assert "not of this cluster (beta)" in told[0]
    assert not user.fake.calls("sacct")


def test_what_ended_there_goes_on_here(user: FakeClusterUser, submission: Submission) -> None:
    end(submission, "error")
    change_cluster(user, "beta")
    user.fake.answer("sbatch", "17\n")
    assert user.submit(user.plan(user.write("tiny"))).job == "17"
    lines = map(json.loads, (submission.path / "jobs").read_text().splitlines())
    assert [(line["job"], line["cluster"]) for line in lines] == [("17", "alpha"), ("17", "beta")]
    assert cancel_tasks(submission, None, user.client) == ["17"]


def test_home_cluster_goes_on_as_before(user: FakeClusterUser, submission: Submission) -> None:
    assert cancel_tasks(submission, None, user.client) == ["17"]
    assert user.fake.calls("scancel") == [["17"]]


def test_jobs_of_before_are_taken_for_this_cluster_s(
    user: FakeClusterUser, submission: Submission
) -> None:
    """Their records name no cluster."""
    jobs: Path = submission.path / "jobs"
    jobs.write_text('{"job": "17", "tasks": "0", "submitted": 5}\n')
    change_cluster(user, "beta")
    assert requeue_tasks(submission, None, user.client)["requeued"] == ["17"]
