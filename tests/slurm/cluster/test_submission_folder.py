"""What lies in runs/slurm: damaged and foreign files disable no command; exact names go first."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm.cluster.submission_folder import (
    Submission,
    all_submissions,
    find_submission,
    parse_array,
    read_submission,
)
from slurm.errors import JobError
from slurm.views.status import task_statuses
from tests.support.fake_cluster_user import FakeClusterUser

TASK = {"index": 0, "name": "a", "command": ["x"]}
FOREIGN = {
    "a list": b"[]",
    "no keys": b"{}",
    "nothing": b"",
    "a number": b"1",
    "no JSON": b'{"tasks": ',
    "no text": b"\xff\xfe{}",
    "nested": b"[" * 100_000,
    "tasks of numbers": json.dumps({"name": "a", "array": False, "tasks": [1]}).encode(),
    "a task without a command": b'{"name": "a", "array": false, "tasks": [{"index": 0}]}',
    "tasks numbered otherwise": json.dumps(
        {"name": "a", "array": True, "tasks": [{**TASK, "index": 5}]}
    ).encode(),
    "another format": json.dumps(
        {"format": 2, "name": "a", "array": False, "tasks": [TASK]}
    ).encode(),
}


def add(user: FakeClusterUser, name: str, content: bytes) -> Path:
    folder = user.runs / "slurm" / name
    folder.mkdir(parents=True)
    (folder / "job.json").write_bytes(content)
    return folder


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_file_is_passed_over_with_a_word(
    user: FakeClusterUser, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = add(user, "other", content)
    user.fake.answer("sbatch", "17\n")
    receipt = user.submit(user.plan(user.write("tiny")))
    assert receipt.job == "17"
    assert [one.path for one in all_submissions(user.runs)] == [receipt.submission]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(folder) in said
    assert "passed over" in said
    with pytest.raises(JobError, match="no submission: ") as error:
        read_submission(folder)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_passed_over(user: FakeClusterUser) -> None:
    """A named pipe would be waited for without end."""
    (user.runs / "slurm" / "a folder" / "job.json").mkdir(parents=True)
    (user.runs / "slurm" / "a pipe").mkdir()
    os.mkfifo(user.runs / "slurm" / "a pipe" / "job.json")
    assert all_submissions(user.runs) == []


def test_keys_of_a_later_version_are_passed_over(user: FakeClusterUser) -> None:
    later = {"name": "a", "array": False, "tasks": [{**TASK, "priority": 1}], "new": {"x": 1}}
    submission = read_submission(add(user, "later", json.dumps(later).encode()))
    assert submission.tasks[0].command == ("x",)
    assert submission.details["new"] == {"x": 1}
    assert [one.state for one in task_statuses(submission, {})] == ["not submitted"]


LINES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([
        b'{"job": "18"}', b'{"job": 19, "tasks": "0"}', b'{"job": "20", "tasks": "7-5000000"}',
        b'{"job": "21", "tasks": "0-"}', b'{"job": "22", "tasks": ""}', b"{[]}", b'{"tasks": "0"}',
        b'{"job": "23", "restart": 0, "nodes": "n1", "began": 5}', b'{"job": "1", "began": "x"}',
        b'{"outcome": 7}', b'{"outcome": "finished", "ended": -1}', b"[1]", b"null",
    ]),
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINES, max_size=4), begin=LINES, end=LINES)
def test_damaged_marks_and_lines_are_passed_over(
    user: FakeClusterUser, lines: list[bytes], begin: bytes, end: bytes
) -> None:
    """Whatever a full disk or an editor left: the queue is asked, with the tasks there are."""
    folder = user.runs / "slurm" / "whole"
    if not folder.exists():
        add(user, "whole", json.dumps({"name": "a", "array": True, "tasks": [TASK]}).encode())
        (folder / "tasks/0/attempt-1").mkdir(parents=True)
        (folder / "tasks/0/attempt-old").mkdir()
    (folder / "jobs").write_bytes(b'{"job": "17", "tasks": "0", "submitted": 5}\n'
                                  + b"\n".join(lines) + b"\n")  # fmt: skip
    for attempt in ("1", "old"):
        (folder / f"tasks/0/attempt-{attempt}/begin").write_bytes(begin)
    (folder / "tasks/0/attempt-1/end").write_bytes(end)
    submission = read_submission(folder)
    assert submission.submitted_jobs()[0] == ("17", frozenset({0}))
    assert all(tasks <= {0} for _, tasks in submission.submitted_jobs())
    assert len(task_statuses(submission, {})) == 1


def test_indices_beyond_the_tasks_are_left_out() -> None:
    assert parse_array("0-3,7", 3) == {0, 1, 2}
    assert parse_array("5-999999999", 6) == {5}


def test_exact_name_goes_before_a_longer_one(user: FakeClusterUser) -> None:
    def submit(name: str, steps: int) -> Path:
        user.fake.answer("sbatch", f"{steps}\n")
        return user.submit(user.plan(user.write(name, steps=steps))).submission

    short, longer = submit("moe", 11), submit("moe-large", 12)
    find = lambda name: find_submission(user.runs, name).path  # noqa: E731
    assert find("moe") == short
    assert find(longer.name) == longer
    assert find("moe-l") == longer
    with pytest.raises(JobError, match="means several submissions"):
        find("mo")
    again = submit("moe", 13)
    with pytest.raises(JobError, match="means several submissions"):
        find("moe")
    assert find(again.name) == again


def test_job_number_of_two_clusters_means_several(user: FakeClusterUser) -> None:
    for name, cluster in (("a", "alpha"), ("b", "beta")):
        folder = add(user, name, json.dumps({"name": name, "array": False, "tasks": [TASK]})
                     .encode())  # fmt: skip
        Submission.record_job(read_submission(folder), "17", "0", 5, cluster)
    with pytest.raises(JobError, match="17: means several submissions"):
        find_submission(user.runs, "17")


def test_submission_is_found_by_id_folder_or_name(user: FakeClusterUser) -> None:
    user.fake.answer("sbatch", "17\n")
    user.fake.answer("sbatch", "18\n")
    first = user.submit(user.plan(user.write("alpha", steps=1))).submission
    second = user.submit(user.plan(user.write("beta", steps=2))).submission
    assert [one.path for one in all_submissions(user.runs)] == [first, second]
    find: Callable[[str], Any] = lambda wanted: find_submission(user.runs, wanted).path  # noqa: E731
    assert find("18") == find("18_4") == find("beta") == find(str(second)) == second
    assert find(first.name[:8]) == first
    with pytest.raises(JobError, match=f"there: {first.name}, {second.name}"):
        find("gamma")
