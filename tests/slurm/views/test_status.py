"""What `moe slurm` shows of submitted tasks: the word of queue, runs and accounting."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import moescale
from slurm.cluster.client import Client
from slurm.cluster.submission_folder import describe, read_submission
from slurm.views.logs import follow
from tests.support.fake_commands import FakeCommands

NAMES = ("running", "waiting", "finished", "failed", "killed", "lost")


class StatusUser:
    """A submitted array of six tasks in as many states, seen through the command line."""

    def __init__(self, folder: Path, fake: FakeCommands) -> None:
        self.fake, self.runs = fake, folder / "runs"
        self.submission = self.runs / "slurm" / "sweep-0123abcd"
        (self.submission / "logs").mkdir(parents=True)
        rows = describe((), name="sweep", is_array=True, slurm={}, profile={})
        rows["tasks"] = [
            {"index": i, "name": name, "command": ["train"], "run_dir": str(self.runs / name),
             "experiment": None, "steps": 100} for i, name in enumerate(NAMES)
        ]  # fmt: skip
        (self.submission / "job.json").write_text(json.dumps(rows))
        read_submission(self.submission).record_job("17", "0-5", 100)

    def attempt(self, task: int, outcome: str | None = None) -> Path:
        """Note a start and its end."""
        number = len(list((self.submission / f"tasks/{task}").glob("attempt-*"))) + 1
        folder = self.submission / f"tasks/{task}/attempt-{number}"
        folder.mkdir(parents=True)
        begin = {"job": f"17_{task}", "restart": number - 1, "nodes": "n[1-2]", "began": 100}
        (folder / "begin").write_text(json.dumps(begin))
        if outcome:
            end = {"outcome": outcome, "exit_code": 0, "ended": 160}
            (folder / "end").write_text(json.dumps(end))
        return folder

    def progress(self, task: int, steps: int, **record: Any) -> None:
        """Write a run's rows and record."""
        run_dir = self.runs / NAMES[task]
        run_dir.mkdir(parents=True)
        rows = [
            {"step": step, "tokens": step * 10, "loss": 9 / step, "step_time_s": 0.5,
             "tokens_per_s": 20.0, "energy_joules": 3.0} for step in range(1, steps + 1)
        ]  # fmt: skip
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (run_dir / "metrics.jsonl").write_text(lines + '{"step": 999, "lo')
        if record:
            (run_dir / "record.json").write_text(json.dumps(record))

    def run(self, *words: str, code: int = 0) -> str:
        """Run `moe slurm WORDS` here."""
        done = CliRunner().invoke(moescale.app, ["slurm", *words, "--runs-dir", str(self.runs)])
        if code:
            assert getattr(done.exception, "exit_code", None) == code, done.output
            return str(done.exception)
        assert done.exception is None, done.exception
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StatusUser:
    fake = FakeCommands(tmp_path, monkeypatch)
    fake.answer(
        "squeue",
        "17_0|RUNNING|None|1:00:00|2026-11-23T23:58:04|n[1-2]\n17_1|PENDING|Priority|2:00:00|N/A|\n"
        "17_3|FAILED|NonZeroExitCode|0:00|N/A|n1\n",
    )
    user = StatusUser(tmp_path, fake)
    for task, outcome in ((0, "preempted"), (0, None), (2, "finished"), (3, "error"), (4, None)):
        user.attempt(task, outcome)
    user.progress(0, 40)
    energy = {"total": {"value": 500.0}, "kind": "measured", "boundary": "GPU board"}
    user.progress(2, 100, status="finished", final_loss=0.5, energy=energy)
    return user


def test_every_state_has_its_word(user: StatusUser) -> None:
    (shown,) = user.json("status")["submissions"]
    states = [task["state"] for task in shown["tasks"]]
    assert states == ["running", "pending", "finished", "error", "killed", "lost"]
    assert shown["counts"] == dict.fromkeys(states, 1)
    assert shown["jobs"] == ["17"]
    assert len(user.fake.calls("squeue")) == 1


def test_running_task_tells_how_far_it_is(user: StatusUser) -> None:
    task = user.json("status", "sweep")["submissions"][0]["tasks"][0]
    assert (task["job"], task["nodes"], task["attempts"]) == ("17_0", "n[1-2]", 2)
    assert (task["step"], task["steps"], task["tokens_per_s"]) == (40, 100, 20.0)
    assert task["time_left_s"] == 60 * 0.5
    assert task["limit_left_s"] == 3600
    assert task["energy_joules"] == 40 * 3.0
    assert task["loss"] == 9 / 40


def test_what_is_not_known_is_null(user: StatusUser) -> None:
    task = user.json("status")["submissions"][0]["tasks"][1]
    assert task["reason"] == "Priority"
    for key in ("step", "loss", "tokens_per_s", "energy_joules", "time_left_s", "nodes"):
        assert task[key] is None


def test_table_has_what_runs_first(user: StatusUser) -> None:
    lines = user.run("status").splitlines()
    assert lines[0].startswith("sweep-0123abcd: 1 running, 1 pending")
    assert "40/100" in lines[2]
    assert "00:00:30" in lines[2]
    assert "01:00:00" in lines[2]
    assert "120 J" in lines[2]
    assert "pending (Priority)" in "\n".join(lines)


def test_submissions_that_are_done_are_one_line(user: StatusUser) -> None:
    other = user.runs / "slurm" / "older-89abcdef"
    shutil.copytree(user.submission, other)
    description = json.loads((other / "job.json").read_text())
    description["tasks"] = [{**description["tasks"][2], "index": 0}]
    (other / "job.json").write_text(json.dumps(description))
    (other / "jobs").write_text('{"job": "9", "tasks": "0", "submitted": 5}\n')
    text = user.run("status")
    assert text.splitlines()[-1].strip() == "finished: older-89abcdef"
    assert "100/100" not in user.run("status").split("finished: ")[-1]
    assert "100/100" in user.run("status", "older")
    assert "--jobs=17,9" in user.fake.calls("squeue")[0]


def test_batch_shell_is_shown_until_a_rank_has_written(user: StatusUser) -> None:
    (user.submission / "logs" / "17_0.log").write_text("starts on n[1-2]\n")
    assert user.json("logs", "17_0")["lines"] == ["starts on n[1-2]"]
    assert "no rank has written yet" in user.run("logs", "17_0")


def test_watching_ends_with_the_queue(user: StatusUser) -> None:
    user.fake.answer("squeue", "")
    lines = user.run("status", "--watch", "0.5", "--json").splitlines()
    states = [json.loads(line)["submissions"][0]["tasks"][0]["state"] for line in lines]
    assert states[0] == "running"
    assert user.run("status", "--watch", "0.5").count("killed")


def test_errors_come_first_the_first_failure_before_its_consequences(user: StatusUser) -> None:
    folder = user.attempt(3, "error")
    for rank, text in (
        (0, "x\nRuntimeError: Connection closed by peer\n"),
        (1, "step 3\nTraceback (most recent call last):\n a\nValueError: sick\n"),
    ):
        (folder / f"rank-{rank}.log").write_text(text)
    (folder / "exit-1").write_text("1\n")
    (folder / "exit-0").write_text("7\n")
    for name, changed_ns in (("exit-1", 1), ("exit-0", 2)):
        os.utime(folder / name, ns=(changed_ns, changed_ns))
    for name, content in (("exit-2", ""), ("exit-x", "1"), ("rank-x.log", "")):
        (folder / name).write_text(content)  # a full disk, an editor
    shown = user.json("logs", "17_3")
    assert [error["rank"] for error in shown["errors"]] == [1, 0, 2]
    assert shown["errors"][2]["exit_code"] is None
    assert shown["errors"][0]["text"].startswith("Traceback")
    assert shown["errors"][1]["exit_code"] == 7
    assert (shown["attempt"], shown["job"], shown["outcome"]) == (2, "17_3", "error")
    text = user.run("logs", "sweep", "--task", "3")
    assert text.index("ValueError: sick") < text.index("Connection closed")
    assert text.index("Connection closed") < text.index("== rank 0, attempt 2")


def test_ranks_and_attempts_can_be_chosen(user: StatusUser) -> None:
    folder = user.submission / "tasks/0/attempt-1"
    (folder / "rank-5.log").write_text("\n".join(map(str, range(100))))
    shown = user.json("logs", "17_0", "--attempt", "1", "--rank", "5", "-n", "3")
    assert shown["lines"] == ["97", "98", "99"]
    assert list(shown["rank_logs"]) == ["5"]
    said = user.run("logs", "17_0", "--attempt", "1", "--rank", "6", "--json", code=2)
    assert said == "attempt 1: no log of rank 6 (there: 5)"
    said = user.run("logs", "17_0", "--attempt", "9", code=2)
    assert "there: 1 to 2" in said
    assert "has not started yet" in user.run("logs", "17_1", code=2)
    assert "choose one" in user.run("logs", "17_0", "--json", "--follow", code=2)


def test_followed_log_goes_from_start_to_start(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("a\n")
    paths, steps = [first], iter(range(9))

    def sleep(_: float) -> None:
        match next(steps):
            case 0:
                first.write_text("a\nb\n")
            case 1:
                second.write_text("c\n")
                paths.append(second)

    overs: Iterator[bool] = iter([False, False, False, True])
    assert list(follow(lambda: paths[-1], lambda: next(overs), sleep=sleep)) == [
        "a\n",
        "b\n",
        "c\n",
    ]


def test_accounting_shows_both_meters_and_their_difference(user: StatusUser) -> None:
    user.fake.answer(
        "sacct",
        "17_2|REQUEUED|60|n1|\n17_2.0|CANCELLED|58|n1|400\n"
        "17_2|COMPLETED|40|n1|\n17_2.0|COMPLETED|40|n1|150\n17_1|PENDING|0|None assigned|\n",
    )
    used = user.json("accounting", "17")
    assert used["source"] == "sacct"
    (task,) = used["tasks"]
    assert (task["starts"], task["states"]) == (2, ["REQUEUED", "COMPLETED"])
    assert (task["elapsed_s"], task["cluster_energy_joules"]) == (100, 550.0)
    assert (task["own_energy_joules"], task["own_boundary"]) == (500.0, "GPU board")
    assert task["discrepancy"] == pytest.approx(0.1)
    table = user.run("accounting", "17")
    assert "+10.0%" in table
    assert "500 J (measured, GPU board)" in table


def test_accounting_where_it_is_disabled(user: StatusUser) -> None:
    user.fake.answer("sacct", stderr="Slurm accounting storage is disabled\n", code=1)
    used = user.json("accounting", "17")
    assert used["source"] == "attempts"
    by_name = {task["name"]: task for task in used["tasks"]}
    assert by_name["finished"]["elapsed_s"] == 60
    assert by_name["finished"]["cluster_energy_joules"] is None
    assert by_name["finished"]["discrepancy"] is None
    # The second start has not ended: no total can be told.
    assert by_name["running"]["states"] == ["preempted", "unknown"]
    assert by_name["running"]["elapsed_s"] is None


def test_start_with_energy_that_is_not_known_leaves_none_of_the_whole(user: StatusUser) -> None:
    """A start that ended before any rank ran has used none."""
    lines = "17_2|REQUEUED|60|n1|\n17_2.0|CANCELLED|58|n1|18446744073709551614\n"
    whole = "17_2|COMPLETED|40|n1|\n17_2.0|COMPLETED|40|n1|150\n"
    user.fake.answer("sacct", lines + whole)
    user.fake.answer("sacct", "17_2|NODE_FAIL|4294967294|n1|\n" + whole)
    (task,) = user.json("accounting", "17")["tasks"]
    assert (task["cluster_energy_joules"], task["discrepancy"]) == (None, None)
    assert task["elapsed_s"] == 100
    (task,) = user.json("accounting", "17")["tasks"]
    assert (task["cluster_energy_joules"], task["elapsed_s"]) == (150.0, None)


def test_accounting_where_the_database_is_down(
    user: StatusUser, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "sacct: error: slurmdbd: the connection is lost\n"
    user.fake.answer("sacct", stderr=said, code=1)
    done = CliRunner().invoke(
        moescale.app, ["slurm", "accounting", "17", "--json", "--runs-dir", str(user.runs)]
    )
    assert done.exception is None
    assert json.loads(done.stdout)["source"] == "attempts"
    assert "moe: sacct: " in done.stderr
    assert "as the batch shells wrote them" in done.stderr


def test_lost_job_tells_how_slurm_ended_it(user: StatusUser) -> None:
    """It failed before its shell could write anything."""
    user.fake.answer("sacct", "17_5|FAILED|0:53|None\n")
    tasks = user.json("status")["submissions"][0]["tasks"]
    assert tasks[5]["state"] == "lost"
    assert tasks[5]["reason"].startswith("FAILED, exit code 0:53: SLURM could not open its log")
    assert [task["reason"] for task in tasks[2:5]] == [None] * 3
    (call,) = user.fake.calls("sacct")
    assert "--jobs=17_5" in call
    user.fake.answer("sacct", stderr="Slurm accounting storage is disabled\n", code=1)
    user.fake.answer("squeue", "17_5|FAILED|JobLaunchFailure|0:00|N/A|\n")
    tasks = user.json("status")["submissions"][0]["tasks"]
    assert tasks[5]["reason"] == "FAILED, JobLaunchFailure"


def test_cancel_and_requeue_answer_in_json(user: StatusUser) -> None:
    assert user.json("cancel", "17_1") == {"cancelled": ["17_1"]}
    assert user.fake.calls("scancel") == [["17_1"]]
    user.fake.answer("sbatch", "18\n")
    assert user.json("requeue", "sweep", "--task", "3") == {"requeued": [], "submitted": ["18"]}
    assert user.json("requeue", "sweep", "--task", "0") == {"requeued": ["17_0"], "submitted": []}


def test_whole_array_is_cancelled_at_once(user: StatusUser) -> None:
    assert user.json("cancel", "sweep") == {"cancelled": ["17_0", "17_1"]}
    assert user.fake.calls("scancel") == [["17"]]


def test_job_that_may_not_be_requeued_is_told_to_go_on(user: StatusUser) -> None:
    path = user.submission / "job.json"
    path.write_text(path.read_text().replace('"slurm": {}', '"slurm": {"continue_by": "submit"}'))
    assert user.json("requeue", "17_0") == {"requeued": ["17_0"], "submitted": []}
    assert user.fake.calls("scancel") == [["--batch", "--signal=USR2", "17_0"]]
    assert not user.fake.calls("scontrol")
    assert (user.submission / "tasks/0/since").read_text() == "2\n"


def test_controller_that_is_down_is_one_line(
    user: StatusUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Client.__init__.__kwdefaults__, "pauses_s", ())
    user.fake.answer("squeue", stderr="slurm_load_jobs error: Unable to contact slurm controller\n",
                     code=1)  # fmt: skip
    user.run("status")
    user.run("status", code=1)
