"""Evidence is kept task by task: what passed stays, what failed says why, nothing is half there."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bench.results import read_results
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_evidence.environment import describe
from benchmarks.gpu_evidence.gather import RESULTS, gather
from benchmarks.gpu_evidence.process import Ended, end_group, failure, run_process
from benchmarks.gpu_evidence.proofs import energy_is_counted, ran_in_te
from benchmarks.gpu_evidence.tasks import Task
from benchmarks.report.bench_results import bench_content, read_bench_files
from moe.runs import source_state
from tests.support.fault_injection import wait_until

CARD: dict[str, Any] = {
    "hardware": {"device": "cuda", "name": "NVIDIA H200", "ranks": 1},
    "cards": 1,
    "compute_capability": [9, 0],
    "transformer_engine": None,
    "faults": [],
}


class FakeRun:
    """Ends tasks as told, by the last word of their command; the rest pass."""

    def __init__(self, card: dict[str, Any] = CARD, out: str = "[]", **reasons: Any) -> None:
        self.card, self.out, self.reasons = card, out, reasons
        self.begun: list[str] = []

    def __call__(self, words: Sequence[str], timeout_s: float, environment: Any) -> Ended:
        if "benchmarks.gpu_evidence.environment" in words:
            return Ended(reason=None, out=json.dumps(self.card), wall_s=1.0)
        name = words[3]
        self.begun.append(name)
        reason = self.reasons.get(name)
        if reason is KeyboardInterrupt:
            raise reason
        return Ended(reason=reason, out=self.out, wall_s=2.0)


def task(name: str, **values: Any) -> Task:
    values = {"part": 1, "rehearsal": None, "timeout_s": 1} | values
    return Task(name=name, on_card=f"bench {name}", **values)


TASKS = [task("a"), task("b"), task("c", part=2)]


def gathered(
    folder: Path, run: FakeRun, tasks: Sequence[Task] = TASKS
) -> tuple[int, list[str], list[tuple[str, str]]]:
    """Gather; returns failures, what was said, and (task, state) of all records in the file."""
    said: list[str] = []
    failed = gather(tasks, "cuda", folder, said.append, run)
    [path] = folder.glob("nvidia-h200-????-??-??.jsonl")
    records = [(r["case"]["task"], r["result"]["state"]) for r in read_results(path)]
    return failed, said, records


def test_what_passed_is_not_run_again_and_what_failed_is(tmp_path: Path) -> None:
    first = FakeRun(b="CUDA error: out of memory (exit code 1)")
    failed, said, records = gathered(tmp_path, first)
    assert failed == 1
    assert first.begun == ["a", "b", "c"]
    assert records == [
        ("environment", "passed"), ("a", "passed"), ("b", "failed"), ("c", "passed")
    ]  # fmt: skip
    assert "part 1, b: failed: CUDA error: out of memory (exit code 1)\n" in said
    second = FakeRun()
    failed, said, records = gathered(tmp_path, second)
    assert (failed, second.begun) == (0, ["b"])
    assert records[4:] == [("b", "passed")]
    assert "part 1, a: kept from an earlier run" in said


def test_another_commit_or_card_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered(tmp_path, FakeRun())
    more = FakeRun({**CARD, "hardware": {**CARD["hardware"], "memory_bytes": 1}})
    gathered(tmp_path, more)
    assert more.begun == ["a", "b", "c"]


def test_a_record_says_command_conditions_and_time(tmp_path: Path) -> None:
    gathered(tmp_path, FakeRun(), [task("a")])
    [path] = tmp_path.glob("*.jsonl")
    record = read_results(path)[1]
    key = {"part": 1, "task": "a", "device": "cuda", "command": "moe bench a"}
    assert record["case"] == key
    assert record["conditions"]["hardware"]["name"] == "NVIDIA H200"
    assert {"commit", "packages", "python", "measured_at"} <= record["conditions"].keys()
    assert record["result"]["wall_s"] == 2.0
    # A report shows the file, whose measurements stand beside.
    [content] = bench_content(read_bench_files([path]))
    assert content["tables"][0]["rows"][1][:3] == ["a", "1", "passed"]


def test_what_the_machine_lacks_is_left_out_and_said_once(tmp_path: Path) -> None:
    needy = [task("two", needs=("two cards",)), task("te", needs=("FP8", "Transformer Engine"))]
    for _ in range(2):
        failed, said, records = gathered(tmp_path, FakeRun(), needy)
        assert failed == 0
        assert "part 1, two: left out: this machine has not: two cards" in said
        assert "part 1, te: left out: this machine has not: Transformer Engine" in said
        assert records[1:] == [("two", "left out"), ("te", "left out")]


def test_what_ends_well_and_proves_nothing_has_failed(tmp_path: Path) -> None:
    needy = [task("energy", proof=energy_is_counted)]
    energy = {"value": 1.0, "kind": "modelled", "source": "gpu model", "reason": None}
    row = {"routing": "forced", "energy_per_token": energy}
    for out, why in (
        (json.dumps([{"result": {"routing": [row]}}]), "not measured: modelled, by gpu model"),
        ("no JSON", "its records cannot be read: JSONDecodeError"),
        ('[{"result": {}}]', "its records cannot be read: KeyError: 'routing'"),
    ):
        failed, said, _ = gathered(tmp_path, FakeRun(out=out), needy)
        assert failed == 1
        assert why in said[-1]
    counted = row | {"energy_per_token": energy | {"kind": "measured", "source": "nvml"}}
    run = FakeRun(out="NCCL version 2\n" + json.dumps([{"result": {"routing": [counted]}}]))
    assert gathered(tmp_path, run, needy)[0] == 0


@pytest.mark.parametrize(
    ("kernels", "fp8", "proven"),
    [("te", {"recipe": "current"}, True), ("te", None, False), ("torch", None, False)],
)
def test_fp8_is_proven_by_what_was_built(kernels: str, fp8: Any, proven: bool) -> None:
    records = [{"result": {"execution": {"kernels": kernels, "fp8": fp8}}}]
    assert (ran_in_te("current")(records) is None) == proven


def test_faults_of_the_environment_are_kept_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = FakeRun({**CARD, "faults": ["no energy counter: nothing"]})
    failed, said, records = gathered(tmp_path, run)
    assert (failed, run.begun) == (1, ["a", "b", "c"])
    assert records[0] == ("environment", "failed")
    assert "environment: no energy counter: nothing" in said


@settings(max_examples=12)
@given(st.lists(st.fixed_dictionaries(
    {name: st.sampled_from([None, "failed", KeyboardInterrupt]) for name in "abc"}
), max_size=4), st.integers(0, 40))  # fmt: skip
def test_however_it_is_stopped_every_task_passes_once(outcomes: list[Any], torn: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for reasons in [*outcomes, {}]:
            try:
                gathered(folder, FakeRun(**reasons))
            except KeyboardInterrupt:
                for path in folder.glob("*.jsonl"):
                    with path.open("a") as file:
                        file.write(('{"format": 1, "bench": "gpu_evidence", "case"')[:torn])
        [path] = folder.glob("*.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        passed = [r["case"]["task"] for r in lines if r["result"]["state"] == "passed"]
        assert sorted(passed) == ["a", "b", "c", "environment"]


def test_a_rehearsal_never_lands_among_measured_results(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(RESULTS)
    for folder in (RESULTS, RESULTS / "deeper", tmp_path / "link"):
        with pytest.raises(BenchmarkError, match="a rehearsal's numbers do not belong"):
            gather(TASKS, "cpu", folder, print, FakeRun())


def test_no_card_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def run(*_: Any) -> Ended:
        return Ended(reason="torch finds no GPU here (exit code 1)", out="", wall_s=1.0)

    with pytest.raises(BenchmarkError, match="torch finds no GPU here"):
        gather(TASKS, "cuda", tmp_path, print, run)
    assert list(tmp_path.iterdir()) == []


def test_environment_describes_this_cpu_and_a_missing_card() -> None:
    found = describe("cpu")
    assert found["hardware"]["device"] == "cpu"
    assert found["faults"] == []
    # A model has no counter: no resolution, and no idle power, is invented.
    if found["energy"]["kind"] == "modelled":
        assert found["energy"]["resolution_s"] is found["energy"]["idle_watts"] is None


@pytest.mark.parametrize(
    ("code", "out", "err", "reason"),
    [
        (2, "", "cut\nmoe: tiny: no such preset\n", "tiny: no such preset (exit code 2)"),
        (1, "FAILED t.py::x - assert 1\n1 failed\n", "", "FAILED t.py::x - assert 1 (exit code 1)"),
        (
            1,
            "",
            "Traceback\nRuntimeError: CUDA error\n\n",
            "RuntimeError: CUDA error (exit code 1)",
        ),
        (3, "", "", "it said nothing (exit code 3)"),
        (-9, "", "", "ended by SIGKILL"),
    ],
)
def test_a_failure_has_one_line(code: int, out: str, err: str, reason: str) -> None:
    assert failure(code, out, err) == reason


def test_processes_end_with_all_they_started() -> None:
    fine = run_process(["-c", "print('x')"], 60)
    assert (fine.reason, fine.out) == (None, "x\n")
    bad = run_process(["-c", "import sys; sys.exit('moe: bad')"], 60)
    assert bad.reason == "bad (exit code 1)"
    assert (
        run_process(["-c", "import time; time.sleep(600)"], 0.1).reason == "took longer than 0.1 s"
    )
    # A grandchild that holds its output and would sleep on.
    sleeper = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", sleeper], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        state = Path(f"/proc/{process.stdout.readline().strip()}/stat")
        end_group(process)
    # Nobody may collect an orphan's exit code: it is gone, or a zombie.
    wait_until(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_new_result_is_no_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every part of `make gpu` would make those before it another commit's."""
    monkeypatch.setattr(source_state, "CHECKOUT", tmp_path)
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    results = tmp_path / source_state.RESULTS
    results.mkdir(parents=True)
    (results / "README.md").touch()
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    (results / "nvidia-h200-2026-11-29.jsonl").write_text("{}\n")
    (results / "README.md").write_text("changed")
    assert source_state.source_state()["dirty"] is False
    (tmp_path / "code.py").touch()
    assert source_state.source_state()["dirty"] is True
