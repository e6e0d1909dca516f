"""A power logger's growing file as a source of a running job."""

from pathlib import Path

import pytest

from benchmarks.energy.samples import power_samples
from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.sources.power_csv import PowerCsvSource
from benchmarks.energy.sources.selection import select_source
from benchmarks.errors import BenchmarkError
from moe.config.energy import EnergyConfig
from tests.support.fake_meters import FakeClock, Rank, Ranks
from tests.support.power_log import write_power_log


def test_a_growing_file_is_read_on(tmp_path: Path) -> None:
    clock = FakeClock()
    path = write_power_log(tmp_path / "p.csv", *((clock.now - 5 + t, 250, "") for t in range(6)))
    source = PowerCsvSource(path, clock=clock)
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
        PowerCsvSource(path, clock=clock)
    clock.advance(-120)
    with pytest.raises(SourceUnavailableError, match="60 s ahead of this machine's clock: log tim"):
        PowerCsvSource(path, clock=clock)


def test_a_long_log_is_not_gone_through_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summaries: list[int] = []

    def count(devices: dict[str, list[tuple[float, float]]]) -> list[tuple[str, str]]:
        summaries.append(len(devices[""]))
        return []

    monkeypatch.setattr(power_samples, "alike", count)
    clock = FakeClock()
    path = write_power_log(tmp_path / "p.csv", *((clock.now - 999 + t, 9, "") for t in range(1000)))
    source = PowerCsvSource(path, clock=clock)
    for _ in range(30):
        clock.advance(1)
        with path.open("a") as file:
            file.write(f"{clock.now},{clock.now},\n")
        joules = source.read_joules()
        assert source.info.max_power_watts == clock.now
    assert joules == pytest.approx(sum(1000.5 + t for t in range(30)) - (1000 - 9) / 2)
    assert summaries == [1000, 1011, 1022]


def test_one_rank_reads_the_file_for_all(tmp_path: Path) -> None:
    clock = FakeClock()
    path = write_power_log(tmp_path / "p.csv", *((clock.now - 5 + t, 250, "") for t in range(6)))
    ranks = Ranks(
        [Rank(lambda: PowerCsvSource(path, clock=clock), clock) for _ in range(3)], tmp_path
    )
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


def test_the_file_is_reached_from_the_configuration(tmp_path: Path) -> None:
    context = Ranks([Rank(lambda: None, FakeClock())], tmp_path).context(0)
    config = EnergyConfig(source="csv", power_csv=str(tmp_path / "none.csv"))
    with pytest.raises(BenchmarkError, match=r'energy.source = "csv".*none.csv'):
        select_source(config, context)
    write_power_log(tmp_path / "none.csv", (1, 5, "node"), (1, 2, "gpu0"))
    with pytest.raises(BenchmarkError, match=r"name those that add up in energy.power_devices"):
        select_source(config, context)
    named = config.model_copy(update={"power_devices": ("gpu0",)})
    with pytest.raises(BenchmarkError, match=r"newest sample is \d+ s old"):
        select_source(named, context)
    with pytest.raises(ValueError, match="set both, or neither"):
        EnergyConfig(source="csv")
    with pytest.raises(ValueError, match="power_devices are those of power_csv"):
        EnergyConfig(power_devices=("node",))
    with pytest.raises(ValueError, match="names a device twice"):
        EnergyConfig(source="csv", power_csv="p.csv", power_devices=("a", "a "))
