"""`moe energy`: a run's own joules, and a finished run metered by a power log."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data.storage.lock import FileLock
from moescale import app
from tests.support.power_log import write_power_log
from tests.support.synthetic_runs import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = make_run(tmp_path / "run", sparse=False)
    rows = "0,start,0\n0,phase,idle\n10,phase,train\n110,phase,idle\n111,end,\n"
    (path / "phases.csv").write_text("unix_s,event,value\n" + rows)
    return path


def moe(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_finished_run_is_metered_by_a_log(run: Path, tmp_path: Path) -> None:
    log = write_power_log(
        tmp_path / "pdu.csv", *((t, 100 if t < 10 else 500, "pdu") for t in range(115))
    )
    done = moe("energy", run, "--power-csv", log, "--json", "--keep")
    assert done.exit_code == 0, done.output
    energy = json.loads(done.stdout)
    # At 9 to 10 s the trapezoid climbs; training lasts 100 s at 500 W.
    assert energy["train"]["value"] == pytest.approx(50_000)
    assert energy["phases"]["idle"]["value"] == pytest.approx(900 + 300 + 500)
    assert energy["per_token"]["value"] == pytest.approx(50_000 / (200 * 4096))
    assert (energy["kind"], energy["boundary"]) == ("measured", "pdu")
    assert "as dense as MLPerf's" in energy["note"]
    # Samples a second apart, of at most 500 W: the two ends of the run, not those of each phase.
    assert energy["total"]["uncertainty"] == pytest.approx(2 * 500)
    assert energy["phases"]["idle"]["uncertainty"] == pytest.approx(2 * 2 * 500)
    record = json.loads((run / "record.json").read_text())
    assert record["energy"]["source"] == "csv"
    assert record["energy_own"]["source"] == "model"
    moe("energy", run, "--power-csv", log, "--keep")
    assert json.loads((run / "record.json").read_text())["energy_own"]["source"] == "model"


def test_devices_that_are_named_are_summed(run: Path, tmp_path: Path) -> None:
    devices = {"node": 500, "gpu0": 300, "gpu1": 100}
    rows = [(t, watts, name) for t in range(115) for name, watts in devices.items()]
    log = write_power_log(tmp_path / "pdu.csv", *rows)
    refused = moe("energy", run, "--power-csv", log).exception
    assert getattr(refused, "exit_code", None) == 2
    assert 'devices "node" and "gpu0" may be a whole and its part' in str(refused)
    named = ("--power-device", "gpu0", "--power-device", "gpu1")
    energy = json.loads(moe("energy", run, "--power-csv", log, *named, "--json").stdout)
    assert energy["train"]["value"] == pytest.approx(100 * 400)
    assert energy["boundary"] == "gpu0, gpu1"
    assert "goes with --power-csv FILE" in str(moe("energy", run, *named).exception)


def test_a_run_on_its_way_is_not_written(run: Path, tmp_path: Path) -> None:
    log = write_power_log(tmp_path / "pdu.csv", *((t, 500, "pdu") for t in range(115)))
    before = (run / "record.json").read_text()
    with FileLock(run / ".lock"):
        refused = moe("energy", run, "--power-csv", log, "--keep").exception
        assert moe("energy", run, "--power-csv", log).exit_code == 0
    assert getattr(refused, "exit_code", None) == 2
    assert "still running: keep it when it has ended" in str(refused)
    assert (run / "record.json").read_text() == before
    refused = moe("energy", tmp_path, "--power-csv", log, "--keep").exception
    assert "not a run directory" in str(refused)


def test_a_log_that_ends_early_gives_null(run: Path, tmp_path: Path) -> None:
    log = write_power_log(tmp_path / "pdu.csv", *((t, 500, "") for t in range(60)))
    energy = json.loads(moe("energy", run, "--power-csv", log, "--json").stdout)
    assert energy["per_token"]["value"] is None
    assert "no sample" in energy["per_token"]["reason"]


def test_energy_is_shown_in_words(run: Path) -> None:
    done = moe("energy", run)
    assert done.exit_code == 0
    for words in ("train", "total", "modelled", "energy per trained token", "quantization"):
        assert words in done.stdout
    refused = moe("energy", run, "--keep").exception
    assert getattr(refused, "exit_code", None) == 2
    assert "--power-csv FILE" in str(refused)


def test_one_run_without_energy_hides_no_other(run: Path, tmp_path: Path) -> None:
    failed = tmp_path / "failed"
    failed.mkdir()
    (failed / "record.json").write_text('{"format": 1, "status": "failed", "failure": "no meter"}')
    done = moe("energy", failed, run, "--json")
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)["runs"]
    assert first["run"] == str(failed)
    assert "failed before its first step (no meter)" in first["unknown"]
    assert second["total"] == json.loads(moe("energy", run, "--json").stdout)["total"]
    words = moe("energy", failed, run).stdout
    assert "failed before its first step (no meter)" in words
    assert "energy per trained token" in words
    refused = moe("energy", failed).exception
    assert getattr(refused, "exit_code", None) == 2
    assert "failed before its first step" in str(refused)
