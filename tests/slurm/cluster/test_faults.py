"""A full disk, a torn line, a command that was ended: no job is lost, none is queued twice."""

import errno
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import moescale
from slurm.cluster.control import requeue_tasks
from slurm.cluster.submission_folder import all_submissions, read_submission
from slurm.errors import JobError, SlurmError, UnrecordedError
from slurm.job import code_snapshot
from slurm.views.status import task_statuses
from tests.support.fake_cluster_user import FakeClusterUser
from tests.support.simulator import Simulator

Simulate = Callable[..., Simulator]


def fill_disk(file: Path) -> None:
    """Let writing to a file find no room. Never read it: it has no end."""
    file.symlink_to("/dev/full")


def test_queued_job_that_the_disk_does_not_take_is_told_and_taken_up_later(
    user: FakeClusterUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = user.plan(user.write("sweep/a").parent)
    jobs = plan.job.job_dir / "jobs"
    accept = user.client.submit

    def accept_as_the_disk_fills(script: Path, **options: Any) -> str:
        fill_disk(jobs)
        return accept(script, **options)

    monkeypatch.setattr(user.client, "submit", accept_as_the_disk_fills)
    user.fake.answer("sbatch", "17\n")
    with pytest.raises(UnrecordedError, match=r"job 17 is queued but .*\(No space left on device"):
        user.submit(plan)
    jobs.unlink()
    user.fake.answer("squeue", f"17|{plan.job.job_dir / 'job.sh'}\n9|/another.sh\n")
    user.fake.answer("squeue", "17_0|PENDING|Priority|1:00|N/A|\n")
    assert list(user.submit(plan).states.values()) == ["queued"]
    assert read_submission(plan.job.job_dir).job_ids(0) == ["17_0"]
    assert len(user.fake.calls("sbatch")) == 1


def test_requeue_takes_up_a_job_of_an_ended_command(user: FakeClusterUser) -> None:
    plan = user.plan(user.write("tiny"))
    user.fake.answer("sbatch", "17\n")
    submission = read_submission(user.submit(plan).submission)
    (submission.path / "jobs").unlink()
    user.fake.answer("squeue", f"17|{submission.script}\n")
    user.fake.answer("squeue", "17|PENDING|Priority|1:00|N/A|\n")
    assert requeue_tasks(submission, None, user.client) == {"requeued": [], "submitted": []}
    assert submission.submitted_jobs() == [("17", frozenset({0}))]


def test_torn_lines_and_empty_marks_are_passed_over(user: FakeClusterUser) -> None:
    user.fake.answer("sbatch", "17\n")
    submission = read_submission(user.submit(user.plan(user.write("tiny"))).submission)
    with (submission.path / "jobs").open("a") as file:
        file.write('{"job": "18", "ta')
    for _ in range(2):  # by the batch shell, and by who took the job up
        submission.record_job("19", "0", 5)
    assert submission.job_ids(0) == ["17", "19"]
    for number, begin, end in ((1, "", ""), (2, '{"job": "19", "restart": 1, "nodes": "n1",'
                               ' "began": 5}', '{"outc')):  # fmt: skip
        folder = submission.task_dir(0) / f"attempt-{number}"
        folder.mkdir(parents=True)
        (folder / "begin").write_text(begin)
        (folder / "end").write_text(end)
    (attempt,) = submission.attempts(0)
    assert (attempt.number, attempt.job, attempt.outcome) == (2, "19", None)
    assert [one.state for one in task_statuses(submission, {})] == ["killed"]


def test_refusal_is_told_though_its_folder_cannot_be_removed(
    user: FakeClusterUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = user.plan(user.write("tiny"))
    user.fake.answer("sbatch", stderr="sbatch: error: Invalid qos specification\n", code=1)
    user.fake.answer("sbatch", "17\n")

    def refuse(_path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError("Directory not empty")

    with monkeypatch.context() as patch, pytest.raises(JobError, match=r"slurm\.qos"):
        patch.setattr(shutil, "rmtree", refuse)
        user.submit(plan)
    assert all_submissions(user.runs) == []
    (plan.job.job_dir / "logs").mkdir(parents=True)  # as an earlier removal may have left it
    assert user.submit(plan).job == "17"


@pytest.mark.parametrize("of_files", [True, False])
def test_code_that_the_disk_does_not_take_is_one_line(
    user: FakeClusterUser, monkeypatch: pytest.MonkeyPatch, of_files: bool
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise shutil.Error([("a", "b", str(full)), ("c", "d", str(full))]) if of_files else full

    monkeypatch.setattr(shutil, "copytree", refuse)
    monkeypatch.setattr(code_snapshot, "_read_git", code_snapshot._read_plain)
    monkeypatch.setattr(code_snapshot, "CODE", ("moescale.py",))
    words = ["slurm", "submit", str(user.write("tiny")), "--runs-dir", str(user.runs)]
    error = CliRunner().invoke(moescale.app, words).exception
    assert isinstance(error, SlurmError)
    assert str(error).count("No space left on device") == 1


def test_start_on_a_full_disk_is_told_and_leaves_no_mark(simulate: Simulate) -> None:
    job = simulate()
    full = 'case $1 in *attempt-1) /bin/mkdir "$1" && exec ln -s /dev/full "$1/begin.part" ;; esac'
    job.add_command("mkdir", full)
    job.start()
    assert job.wait() == 1
    assert "attempt-1: make room, then moe slurm requeue" in job.log()
    assert not (job.job_dir / "tasks/0/attempt-1/begin").exists()


def test_run_goes_on_where_nothing_can_be_written_of_it(simulate: Simulate) -> None:
    job = simulate()
    job.add_command("mkdir", "case $1 in */continued) exit 1 ;; esac")
    job.start(hold_at=5)
    for mark in ("stopped", "end.part"):
        (job.job_dir / "tasks/0/attempt-1" / mark).symlink_to("/no/such/folder")
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 0, job.log()
    assert job.outcomes() == [None]
    assert job.restarted(), job.log()


def test_next_job_that_the_disk_does_not_take_is_told(simulate: Simulate) -> None:
    job = simulate(continue_by="submit")
    fill_disk(job.job_dir / "jobs")
    job.start(hold_at=5)
    job.signal_batch(signal.SIGUSR2)
    assert job.wait() == 0
    assert len(job.calls("sbatch")) == 1
    assert "job 4711 could not be added to" in job.log()


def test_jobs_is_written_by_one_at_a_time(simulate: Simulate) -> None:
    """The batch shell waits for the lock that `record_job` holds."""
    job = simulate(continue_by="submit")
    with (job.job_dir / "jobs").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        job.start(hold_at=5)
        job.signal_batch(signal.SIGUSR2)
        job.wait_until(lambda: "continued by job 4711" in job.log())
        assert os.stat(file.fileno()).st_size == 0
    assert job.wait() == 0
    assert json.loads((job.job_dir / "jobs").read_text())["job"] == "4711"
