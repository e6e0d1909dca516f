"""What cancel and requeue do to the tasks of a submission."""

import pytest

from slurm.cluster.control import cancel_tasks, requeue_tasks
from slurm.cluster.submission_folder import read_submission
from slurm.errors import JobError
from slurm.job.plan import JobPlan
from tests.support.fake_cluster_user import FakeClusterUser


def add_attempt(user: FakeClusterUser, plan: JobPlan, index: int, outcome: str) -> None:
    attempts = plan.job.job_dir / "tasks" / str(index)
    number = len(list(attempts.glob("attempt-*"))) + 1
    folder = attempts / f"attempt-{number}"
    folder.mkdir(parents=True)
    (folder / "begin").write_text('{"job": "17", "restart": 0, "nodes": "n1", "began": 5}')
    (folder / "end").write_text(f'{{"outcome": "{outcome}", "exit_code": 75, "ended": 9}}')


def test_cancelled_task_is_marked_before_it_is_cancelled(user: FakeClusterUser) -> None:
    plan = user.plan(user.write("tiny"))
    user.fake.answer("sbatch", "17\n")
    submission = read_submission(user.submit(plan).submission)
    user.fake.answer("squeue", "17|RUNNING|None|1:00|N/A|n1\n")
    assert cancel_tasks(submission, None, user.client) == ["17"]
    assert (submission.task_dir(0) / "cancelled").exists()
    assert user.fake.calls("scancel") == [["17"]]
    with pytest.raises(JobError, match="no task 7"):
        cancel_tasks(submission, 7, user.client)


def test_requeue_goes_on_with_what_ended_and_forgives_it(user: FakeClusterUser) -> None:
    for number in range(4):
        user.write(f"sweep/r{number}", steps=number + 1)
    plan = user.plan(user.folder / "sweep")
    user.fake.answer("sbatch", "17\n")
    user.fake.answer("sbatch", "18\n")
    submission = read_submission(user.submit(plan).submission)
    user.finish(plan, 0)
    for outcome in ("preempted", "error"):
        add_attempt(user, plan, 3, outcome)
    (submission.task_dir(3) / "cancelled").touch()
    user.fake.answer("squeue", "17_1|RUNNING|None|1:00|N/A|n1\n17_2|PENDING|Priority|1:00|N/A|\n")
    done = requeue_tasks(submission, None, user.client)
    assert done == {"requeued": ["17_1"], "submitted": ["18"]}
    assert user.fake.calls("scontrol")[-1] == ["requeue", "17_1"]
    assert user.fake.calls("sbatch")[-1][1] == "--array=3"
    assert (submission.task_dir(3) / "since").read_text() == "2\n"
    assert not (submission.task_dir(3) / "cancelled").exists()
