"""Meter files that somebody else made or that were damaged: read, refused, or unknown."""

import contextlib
import csv
import io
import json
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.energy.phases.phase_log import (
    PhaseLog,
    phase_intervals,
    read_phases,
    read_totals,
    resume_totals,
    write_totals,
)
from benchmarks.energy.phases.totals import Totals
from benchmarks.energy.remeter import remeter_from_samples
from benchmarks.energy.samples.power_samples import SampleFile
from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.errors import BenchmarkError
from data.errors import InputError
from tests.support.hostile_json import damaged, mutations

KEEPS_FOLDER = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PHASE = {"joules": 5.0, "seconds": 2.0, "quantisation_joules": 0.0}
STATE = {"phases": {"train": PHASE, "idle": PHASE}, "reasons": ["r"], "starts": 1,
         "own_seconds": 0.1, "killed": 0, "phase_rows": 3}  # fmt: skip
GOOD = Totals({"train": dict(PHASE)}, [], 1)


@given(mutations(STATE))
def test_any_meter_state_of_a_checkpoint_is_taken_or_refused(state: Any) -> None:
    try:
        totals = Totals.from_state(state, "state.json")
    except BenchmarkError as error:
        assert len(str(error).splitlines()) == 1
    else:
        json.dumps(resume_totals(totals, GOOD).to_state())
        json.dumps(resume_totals(GOOD, totals).to_state())


@KEEPS_FOLDER
@given(mutations(STATE))
def test_totals_that_cannot_be_read_are_unknown(tmp_path: Path, state: Any) -> None:
    (tmp_path / "energy.json").write_text(json.dumps(state))
    newest = read_totals(tmp_path)
    assert newest is None or newest.starts >= 1


def test_totals_behind_a_link_or_in_a_pipe_are_unknown(tmp_path: Path) -> None:
    write_totals(tmp_path, GOOD)
    assert read_totals(tmp_path) is not None
    (tmp_path / "energy.json").rename(tmp_path / "other")
    (tmp_path / "energy.json").symlink_to("other")
    (tmp_path / "phases.csv").symlink_to("other")
    assert read_totals(tmp_path) is None and read_phases(tmp_path) == []
    (tmp_path / "energy.json").unlink()
    os.mkfifo(tmp_path / "energy.json")
    assert read_totals(tmp_path) is None


@KEEPS_FOLDER
@given(st.data())
def test_a_damaged_phase_log_counts_up_to_the_damage(tmp_path: Path, data: st.DataObject) -> None:
    (tmp_path / "phases.csv").unlink(missing_ok=True)
    log = PhaseLog(tmp_path, 0)
    log.begin("idle")
    log.begin("train")
    log.end()
    content = (tmp_path / "phases.csv").read_bytes()
    (tmp_path / "phases.csv").write_bytes(data.draw(damaged(content)))
    phase_intervals(read_phases(tmp_path))
    (tmp_path / "watts.csv").write_text("time,watts\n0,5\n1,5\n")
    try:
        remeter_from_samples(tmp_path, {}, tmp_path / "watts.csv")
    except InputError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("time", ["nan", "-1", "1e300"])
def test_a_phase_at_no_time_is_not_counted(tmp_path: Path, time: str) -> None:
    (tmp_path / "phases.csv").write_text(f"unix_s,event,value\n{time},phase,idle\n")
    assert read_phases(tmp_path) == []


CELLS = ("0", "1", "2.5", "-1", "nan", "inf", "1e300", "-1e300", "2026-01-01T00:00:00", "", '"',
         "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "a\r",
         "9" * 200_000)  # fmt: skip


@KEEPS_FOLDER
@given(st.lists(st.tuples(st.sampled_from(CELLS), st.sampled_from(CELLS)), max_size=5))
def test_any_power_log_is_read_or_refused(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    file = tmp_path / "watts.csv"
    file.write_text("time,watts\n" + "".join(f"{time},{watts}\n" for time, watts in rows))
    try:
        samples = SampleFile(file).samples
    except SourceUnavailableError as error:
        assert len(str(error)) < 600 and str(file) in str(error)
    else:
        assert samples.max_watts >= 0
        assert -1e11 < samples.newest_s < 1e11


WATTS = st.integers(0, 5000).map(str) | st.sampled_from(["0.5", "2.50", "1e2", " 7 ", "1250", ".5"])
ODD = st.sampled_from(
    ["1,250", '"1,250"', "1_0", "inf", "nan", "1e300", "-5", "", "x", '"', "1 250", "\u0661", "1\r"]
)
DEVICES = st.sampled_from(
    ["psu1", "psu2", " psu1", "psu2 ", '"psu1"'] * 3
    + ["psu01", "PSU1", "node", "psu1/fan", "", "psu3", "a,b"]
)
HEADINGS = st.sampled_from(["time,watts,device"] * 12 + ["device,time,watts", " Time ,WATTS,Device",
    "time,watts", "time,watts,outlet", "time,watts,device,volts", "time,watts,watts"])  # fmt: skip


@st.composite
def power_logs(draw: st.DrawFn) -> str:
    """Return a log, mostly good, of cells that a logger or a spreadsheet may write."""
    heading = draw(HEADINGS)
    pool = draw(st.lists(DEVICES, min_size=1, max_size=2))
    lines, unix_s = [heading], 0
    for _ in range(draw(st.integers(2, 9))):
        unix_s += draw(st.integers(1, 4))
        cells = {"time": f"{unix_s}", "watts": draw(WATTS), "device": draw(st.sampled_from(pool))}
        if draw(st.integers(0, 19)) == 0:
            cells[draw(st.sampled_from(["time", "watts"]))] = draw(ODD)
        lines.append(",".join(cells.get(name.strip().lower(), "3") for name in heading.split(",")))
    return "\n".join(lines) + draw(st.sampled_from(["\n", "\n\n", "", "\r\n"]))


def slow_joules(text: str, wanted: list[str] | None, begin_s: int, end_s: int) -> Fraction:
    """Integrate a log second by half second, in exact numbers; asserts what makes it certain."""
    whole = text[: text.rindex("\n")]
    heading, *rows = [row for row in csv.reader(io.StringIO(whole, newline="")) if row]
    names = [name.strip().lower() for name in heading]
    assert sorted(names) in (["time", "watts"], ["device", "time", "watts"])
    logs: dict[str, dict[Fraction, Fraction]] = {}
    for row in rows:
        assert len(row) == len(names)
        cells = dict(zip(names, (cell.strip() for cell in row), strict=True))
        if wanted is None or cells.get("device") in wanted:
            time, watts = (cells[name] for name in ("time", "watts"))
            assert not set(time + watts) - set("0123456789.e+")
            log = logs.setdefault(cells.get("device", ""), {})
            assert Fraction(time) not in log
            log[Fraction(time)] = Fraction(watts)
    if wanted is None:
        assert len({re.sub("[0-9]", "", name) for name in logs}) == 1
    total = Fraction(0)
    for log in logs.values():
        for half in range(2 * begin_s, 2 * end_s):
            middle = Fraction(half, 2) + Fraction(1, 4)
            left = max((time for time in log if time <= middle), default=min(log))
            right = min((time for time in log if time >= middle), default=max(log))
            share = (middle - left) / (right - left) if right != left else 0
            total += (log[left] + (log[right] - log[left]) * share) / 2
    return total


@settings(KEEPS_FOLDER, max_examples=200)
@given(power_logs(), st.sampled_from([None, None, None, ["psu1"], ["psu2", "psu1"]]))
def test_any_power_log_gives_the_joules_of_a_slow_reading_or_is_refused(
    tmp_path: Path, text: str, wanted: list[str] | None
) -> None:
    file = tmp_path / "watts.csv"
    file.write_bytes(text.encode())
    try:
        samples = SampleFile(file, wanted).samples
    except SourceUnavailableError as error:
        assert str(error).startswith(f"{file}: ") and len(str(error).splitlines()) == 1
    else:
        # From the first sample to the last; beyond a device's own, its nearest holds a while.
        ends = [log[i][0] for log in samples.devices.values() for i in (0, -1)]
        begin_s, end_s = int(min(ends)), int(max(ends))
        with contextlib.suppress(SourceLostError):
            assert samples.joules(begin_s, end_s) == pytest.approx(
                float(slow_joules(text, wanted, begin_s, end_s))
            )


def test_a_pipe_or_device_is_no_power_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "watts.csv")
    for path in (tmp_path / "watts.csv", Path("/dev/zero")):
        with pytest.raises(SourceUnavailableError, match="not a regular file"):
            SampleFile(path)
