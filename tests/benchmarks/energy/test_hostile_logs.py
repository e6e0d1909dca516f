"""Meter files that somebody else made or that were damaged: read, refused, or unknown."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.energy.phase_log import (
    PhaseLog,
    phase_intervals,
    read_phases,
    read_totals,
    resume_totals,
    write_totals,
)
from benchmarks.energy.power_samples import SampleFile
from benchmarks.energy.remeter import remeter_from_samples
from benchmarks.energy.source import SourceUnavailableError
from benchmarks.energy.totals import Totals
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


def test_a_pipe_or_device_is_no_power_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "watts.csv")
    for path in (tmp_path / "watts.csv", Path("/dev/zero")):
        with pytest.raises(SourceUnavailableError, match="not a regular file"):
            SampleFile(path)
