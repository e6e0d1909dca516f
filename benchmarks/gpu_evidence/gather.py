"""Runs tasks on this machine's device and keeps how each ended beside what it measured."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench.results import (
    append_result,
    check_results_writable,
    read_results,
    result_identity,
)
from benchmarks.errors import BenchmarkError
from benchmarks.gpu_evidence.process import Ended
from benchmarks.gpu_evidence.tasks import Device, Task
from moe.runs.environment import environment
from moe.runs.record import utc_now
from moe.runs.source_state import CHECKOUT, source_state
from parallel.planner.calibration.records.bench_records import FORMAT
from parallel.precision.fp8_support import MIN_CAPABILITY

BENCH = "gpu_evidence"
"""The `bench` of a task's own record; the same file has its measurements."""
RESULTS = CHECKOUT / "benchmarks" / "results"
TEST_DEVICE = "MOESCALE_TEST_DEVICE"
"""What the tests marked `gpu` read (tests/support/gpu.py)."""
ENVIRONMENT_S = 120
REHEARSAL_S = 1800
"""A rehearsal proves that everything runs, not how fast: a busy machine is no failure."""

Say = Callable[[str], None]
Run = Callable[..., Ended]


@dataclass(frozen=True)
class Machine:
    """Where evidence is gathered, and into which files."""

    device: Device
    described: Mapping[str, Any]
    """What environment.py printed."""
    folder: Path
    software: Mapping[str, Any] = field(default_factory=environment)
    commit: Mapping[str, Any] = field(default_factory=source_state)

    @property
    def card(self) -> str:
        """The device's name, as part of a file's name."""
        name = str(self.described["hardware"]["name"] or self.device)
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    @property
    def today(self) -> Path:
        """The file that is written."""
        return self.folder / f"{self.card}-{datetime.now(UTC):%Y-%m-%d}.jsonl"

    def earlier(self) -> dict[str, Any]:
        """Return the last result of each task on this card, by identity, whatever the day."""
        records = [
            record
            for path in sorted(self.folder.glob(f"{self.card}-*.jsonl"))
            for record in read_results(path)
            if record.get("bench") == BENCH
        ]
        return {result_identity(record): record.get("result") for record in records}


def gather(tasks: Sequence[Task], device: Device, folder: Path, say: Say, run: Run) -> int:
    """Run all tasks that have not passed yet; returns how many failed.

    Raises:
        BenchmarkError: The device is not there, or results cannot be kept in `folder`.
    """
    if device == "cpu" and folder.resolve().is_relative_to(RESULTS):
        raise BenchmarkError(
            f"--results {folder}: a rehearsal's numbers do not belong among measured ones: choose"
            " another folder"
        )
    machine = Machine(device, _describe(device, run), folder)
    check_results_writable(machine.today)
    faults = machine.described["faults"]
    say(f"{machine.card}: results in {machine.today}")
    failed = 0
    earlier = machine.earlier()
    checked = _record(machine, {"part": 0, "task": "environment", "device": device})
    if not _passed(earlier.get(result_identity(checked))):
        state = {"state": "failed", "reason": "; ".join(faults)} if faults else {"state": "passed"}
        _keep(machine, checked, {**state, **machine.described})
    for fault in faults:
        say(f"environment: {fault}")
        failed = 1
    for task in tasks:
        failed += _run_task(task, machine, earlier, say, run)
    return failed


def _describe(device: Device, run: Run) -> dict[str, Any]:
    words = ["-m", "benchmarks.gpu_evidence.environment", device]
    ended = run(words, ENVIRONMENT_S if device == "cuda" else REHEARSAL_S, None)
    if ended.reason is not None:
        raise BenchmarkError(ended.reason)
    described: dict[str, Any] = json.loads(ended.out)
    return described


def _run_task(task: Task, machine: Machine, earlier: Mapping[str, Any], say: Say, run: Run) -> int:
    """Run one task unless it has passed; returns 1 if it failed."""
    label = f"part {task.part}, {task.name}"
    command = task.command(machine.device, machine.described["cards"])
    key = {"part": task.part, "task": task.name, "device": machine.device}
    record = _record(machine, {**key, "command": f"{task.program} {command or task.on_card}"})
    before = earlier.get(result_identity(record))
    if _passed(before):
        say(f"{label}: kept from an earlier run")
        return 0
    lack = missing(task, machine)
    if lack is not None or command is None:
        say(f"{label}: left out: {lack}")
        left_out = {"state": "left out", "reason": lack}
        if before != left_out:
            _keep(machine, record, left_out)
        return 0
    say(f"{label}: {task.program} {command}")
    limit_s = task.timeout_s if machine.device == "cuda" else REHEARSAL_S
    ended = run(_words(task, command, machine), limit_s, {TEST_DEVICE: machine.device})
    reason = ended.reason or _unproven(task, ended.out, machine.device)
    lines = ended.out.splitlines()
    result: dict[str, Any] = {
        "state": "passed" if reason is None else "failed",
        "reason": reason,
        "wall_s": ended.wall_s,
        # pytest's count of tests.
        "summary": lines[-1] if lines and task.program == "pytest" else None,
    }
    _keep(machine, record, result)
    if reason is not None:
        say(f"{label}: failed: {reason}\n{ended.last_lines}")
    return int(reason is not None)


def _unproven(task: Task, out: str, device: Device) -> str | None:
    """Return what the printed records of a command that ended well do not show."""
    if task.program != "moe":
        return None
    # Libraries may print lines of their own before.
    printed = [line for line in out.splitlines() if line.startswith("[")]
    try:
        records = json.loads(printed[-1] if printed else out)
        return task.proof(records) if task.proof is not None and device == "cuda" else None
    except (ValueError, KeyError, TypeError) as error:
        return f"its records cannot be read: {type(error).__name__}: {error}"


def missing(task: Task, machine: Machine) -> str | None:
    """Return what a task needs and this machine lacks; None where it lacks nothing."""
    if machine.device == "cpu":
        return "it does not run on a CPU" if task.rehearsal is None else None
    described = machine.described
    lacks = {
        "FP8": tuple(described["compute_capability"]) < MIN_CAPABILITY["current"],
        "Transformer Engine": described["transformer_engine"] is None,
        "two cards": described["cards"] < 2,
    }
    absent = [need for need in task.needs if lacks[need]]
    return f"this machine has not: {', '.join(absent)}" if absent else None


def _words(task: Task, command: str, machine: Machine) -> list[str]:
    words = command.split()
    if task.program == "pytest":
        return ["-m", "pytest", *words]
    device = f"parallel.device={machine.device}"
    kept = str(machine.today.resolve())
    return ["-m", "moescale", *words, "--set", device, "--out", kept, "--json"]


def _record(machine: Machine, case: Mapping[str, Any]) -> dict[str, Any]:
    conditions: dict[str, Any] = {
        "hardware": machine.described["hardware"],
        "packages": machine.software["packages"],
        "python": machine.software["python"],
        "platform": machine.software["platform"],
        "commit": machine.commit,
        "command": " ".join(sys.argv),
        "measured_at": utc_now(),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }
    return {"format": FORMAT, "bench": BENCH, "case": dict(case), "conditions": conditions}


def _keep(machine: Machine, record: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    append_result(machine.today, {**record, "result": dict(result)})


def _passed(result: Any) -> bool:
    return isinstance(result, Mapping) and result.get("state") == "passed"
