"""Meters outside the machine: a power logger's file, live and afterwards, and SLURM's figure."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.energy.power_samples import PowerSamples, SampleFile
from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.source_model import GpuModelSource
from benchmarks.energy.source_power_csv import PowerCsvSource
from benchmarks.energy.source_selection import choose_source
from benchmarks.energy.source_slurm import SlurmSource
from benchmarks.errors import BenchmarkError
from data.storage.lock import FileLock
from moe.config.energy import EnergyConfig
from moescale import app
from tests.support.fake_meters import FakeClock, Rank, Ranks
from tests.support.synthetic_runs import make_run

CONFIG = "AcctGatherEnergyType    = acct_gather_energy/{plugin}\nAcctGatherNodeFreq      = 10 sec\n"


def logged(path: Path, *rows: tuple[float | str, float, str]) -> Path:
    lines = [f"{time},{watts},{device}\n" for time, watts, device in rows]
    path.write_text("time,watts,device\n" + "".join(lines))
    return path


def test_trapezoids_by_hand() -> None:
    samples = PowerSamples("here")
    for time_s, watts in ((0, 100), (1, 200), (2, 200), (4, 0)):
        samples.add("", time_s, watts)
    assert samples.joules(0, 4) == pytest.approx(150 + 200 + 200)
    assert samples.joules(0.5, 1.5) == pytest.approx((150 + 200) / 2 * 0.5 + 100)
    assert samples.joules(3, 3) == 0
    # Between samples and a little beyond the last, the nearest power holds.
    assert samples.joules(4, 5) == pytest.approx(0)
    assert samples.joules(-1, 0) == pytest.approx(100)


def test_energy_is_additive_and_devices_are_summed(tmp_path: Path) -> None:
    rows = [(t, 300 + 100 * math.sin(t), "pdu-1") for t in range(100)]
    rows += [(t + 0.5, 50, "pdu-2") for t in range(100)]
    samples = SampleFile(logged(tmp_path / "p.csv", *sorted(rows))).samples
    whole = samples.joules(3.2, 77.7)
    assert whole == pytest.approx(samples.joules(3.2, 40.1) + samples.joules(40.1, 77.7))
    assert whole == pytest.approx(350 * 74.5, rel=0.02)
    assert samples.newest_s == 99


def test_a_silent_logger_is_no_zero() -> None:
    samples = PowerSamples("log.csv")
    for time_s in (*range(10), *range(60, 70)):
        samples.add("pdu", float(time_s), 400.0)
    assert samples.joules(0, 9) == pytest.approx(3600)
    with pytest.raises(
        SourceLostError, match=r"log.csv: no sample of pdu from 1970-01-01T00:00:09"
    ):
        samples.joules(5, 65)
    with pytest.raises(SourceLostError, match="no sample"):
        samples.joules(60, 100)
    with pytest.raises(SourceLostError, match="no sample"):
        samples.joules(-100, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("when,watts\n1,2\n", "no column time"),
        ("time,watts\n1,2\n1,3\n", "line 3: times of a device must grow"),
        ("time,watts\n1,-5\n", "line 2: -5 W is no power"),
        ("time,watts\nsoon,2\n", "line 2"),
        ("time,watts\n", "no samples yet"),
    ],
)
def test_a_damaged_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(SourceUnavailableError, match=message) as error:
        SampleFile(path)
    assert "bad.csv" in str(error.value)


def test_a_growing_file_is_read_on(tmp_path: Path) -> None:
    clock = FakeClock()
    path = logged(tmp_path / "p.csv", *((clock.now - 5 + t, 250, "") for t in range(6)))
    source = PowerCsvSource(path, clock)
    assert source.info.resolution_s == 1
    assert source.info.scope == "job"
    assert source.read_joules() == 0
    with path.open("a") as file:
        file.write(f"{clock.now + 1},350,\n{clock.now + 2},350,\n{clock.now + 3},9")
    clock.advance(2)
    assert source.read_joules() == pytest.approx(300 + 350)
    clock.advance(60)
    with pytest.raises(SourceLostError, match="no sample for 60 s"):
        source.read_joules()
    with pytest.raises(SourceUnavailableError, match="--power-csv"):
        PowerCsvSource(path, clock)


def test_one_rank_reads_the_file_for_all(tmp_path: Path) -> None:
    clock = FakeClock()
    path = logged(tmp_path / "p.csv", *((clock.now - 5 + t, 250, "") for t in range(6)))
    ranks = Ranks([Rank(lambda: PowerCsvSource(path, clock), clock) for _ in range(3)], tmp_path)
    ranks.start()
    ranks.phase("train")
    for _ in range(20):
        clock.advance(1)
        with path.open("a") as file:
            file.write(f"{clock.now},250,\n")
        ranks.step(1, 1000)
    record = ranks.finish()
    assert record["train"]["value"] == pytest.approx(5000)
    # Two stretches of idle and one of training, each known to two sample intervals.
    assert record["train"]["uncertainty"] == pytest.approx(2 * 1 * 250)
    assert record["missing"] == []


class FakeSlurm:
    def __init__(self, plugin: str = "ipmi", energy: str = "1000") -> None:
        self.plugin, self.energy, self.asked = plugin, energy, [""]

    def __call__(self, argv: list[str]) -> str:
        self.asked = argv
        return CONFIG.format(plugin=self.plugin) if argv[0] == "scontrol" else f"{self.energy}\n"


def test_slurm_energy_of_the_running_step() -> None:
    slurm = FakeSlurm()
    source = SlurmSource({"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}, slurm)
    assert source.read_joules() == 1000
    assert slurm.asked[-1] == "--jobs=17.0"
    assert (source.info.resolution_s, source.info.scope) == (10, "job")
    assert "shared node" in (source.info.note or "")
    for nothing in ("0", "", "4294967294", "n/a"):
        slurm.energy = nothing
        with pytest.raises(SourceLostError, match="no energy for 17.0"):
            source.read_joules()


def test_slurm_that_gathers_none_is_said() -> None:
    with pytest.raises(SourceUnavailableError, match="AcctGatherEnergyType is none"):
        SlurmSource({"SLURM_JOB_ID": "17"}, FakeSlurm("none"))
    with pytest.raises(SourceUnavailableError, match="no SLURM job"):
        SlurmSource({}, FakeSlurm())


def test_a_gpu_is_modelled_only_when_asked_and_says_so() -> None:
    clock = FakeClock()
    source = GpuModelSource("GPU 0 of node", 700, 0.5, "data sheet", clock)
    begin = source.read_joules()
    clock.advance(10)
    assert source.read_joules() - begin == pytest.approx(3500)
    assert source.info.kind == "modelled"
    assert source.info.note == "700 W (data sheet) x utilisation 0.5 x wall time"


def test_the_file_is_reached_from_the_configuration(tmp_path: Path) -> None:
    place = Ranks([Rank(lambda: None, FakeClock())], tmp_path).place(0)
    config = EnergyConfig(source="csv", power_csv=str(tmp_path / "none.csv"))
    with pytest.raises(BenchmarkError, match=r'energy.source = "csv".*none.csv'):
        choose_source(config, place)
    with pytest.raises(ValueError, match="set both, or neither"):
        EnergyConfig(source="csv")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = make_run(tmp_path / "run", sparse=False)
    rows = "0,start,0\n0,phase,idle\n10,phase,train\n110,phase,idle\n111,end,\n"
    (path / "phases.csv").write_text("unix_s,event,value\n" + rows)
    return path


def moe(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_finished_run_is_metered_by_a_log(run: Path, tmp_path: Path) -> None:
    log = logged(tmp_path / "pdu.csv", *((t, 100 if t < 10 else 500, "pdu") for t in range(115)))
    done = moe("energy", run, "--power-csv", log, "--json", "--keep")
    assert done.exit_code == 0, done.output
    energy = json.loads(done.stdout)
    # At 9 to 10 s the trapezoid climbs; training lasts 100 s at 500 W.
    assert energy["train"]["value"] == pytest.approx(50_000)
    assert energy["phases"]["idle"]["value"] == pytest.approx(900 + 300 + 500)
    assert energy["per_token"]["value"] == pytest.approx(50_000 / (200 * 4096))
    assert (energy["kind"], energy["boundary"]) == ("measured", "pdu")
    assert "as dense as MLPerf's" in energy["note"]
    record = json.loads((run / "record.json").read_text())
    assert record["energy"]["source"] == "csv"
    assert record["energy_own"]["source"] == "model"
    moe("energy", run, "--power-csv", log, "--keep")
    assert json.loads((run / "record.json").read_text())["energy_own"]["source"] == "model"


def test_a_run_on_its_way_is_not_written(run: Path, tmp_path: Path) -> None:
    log = logged(tmp_path / "pdu.csv", *((t, 500, "pdu") for t in range(115)))
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
    log = logged(tmp_path / "pdu.csv", *((t, 500, "") for t in range(60)))
    energy = json.loads(moe("energy", run, "--power-csv", log, "--json").stdout)
    assert energy["per_token"]["value"] is None
    assert "no sample" in energy["per_token"]["reason"]


def test_energy_is_shown_in_words(run: Path) -> None:
    done = moe("energy", run)
    assert done.exit_code == 0
    for words in ("train", "total", "modelled", "energy a trained token", "quantisation"):
        assert words in done.stdout
    refused = moe("energy", run, "--keep").exception
    assert getattr(refused, "exit_code", None) == 2
    assert "--power-csv FILE" in str(refused)
