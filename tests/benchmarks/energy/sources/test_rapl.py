"""RAPL against a powercap tree in a temporary directory."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.sources import rapl
from benchmarks.energy.sources.rapl import RaplSource, repeats_counters
from tests.support.fake_meters import FakeClock
from tests.support.fake_powercap import RANGE_UJ, add_joules


def test_packages_and_dram_count_once(powercap: Path) -> None:
    clock = FakeClock()
    source = RaplSource("node", powercap, clock)
    assert source.read_joules() == 0
    clock.advance(1)
    for name, joules in [("intel-rapl:0", 50), ("intel-rapl:0:0", 40), ("intel-rapl:0:1", 7),
                         ("intel-rapl:1", 60), ("intel-rapl:2", 130)]:  # fmt: skip
        add_joules(powercap / name, joules)
    assert source.read_joules() == pytest.approx(117)
    assert source.info.boundary == "CPU packages and DRAM"
    assert source.info.max_power_watts == pytest.approx(600)
    assert source.info.scope == "node"


def test_wrap_around(powercap: Path) -> None:
    (powercap / "intel-rapl:1" / "energy_uj").write_text(f"{RANGE_UJ - 30_000_000}\n")
    clock = FakeClock()
    source = RaplSource("node", powercap, clock)
    source.read_joules()
    clock.advance(1)
    add_joules(powercap / "intel-rapl:1", 100)
    assert source.read_joules() == pytest.approx(100)


def test_a_fall_that_no_wrap_explains_is_a_loss(powercap: Path) -> None:
    clock = FakeClock()
    source = RaplSource("node", powercap, clock)
    source.read_joules()
    clock.advance(1)
    (powercap / "intel-rapl:1" / "energy_uj").write_text("0\n")
    with pytest.raises(SourceLostError, match="reset"):
        source.read_joules()


def test_a_silence_in_which_the_counter_may_have_wrapped_is_a_loss(powercap: Path) -> None:
    clock = FakeClock()
    source = RaplSource("node", powercap, clock)
    source.read_joules()
    clock.advance(262_143 / 200 + 1)
    with pytest.raises(SourceLostError, match="wrapped unseen"):
        source.read_joules()


def test_the_poll_fills_the_silence(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a long step only the thread reads; more than two wraps' worth must all arrive."""
    clock = FakeClock()
    source = RaplSource("node", powercap, clock)
    source.read_joules()
    polled = threading.Semaphore(0)
    turn = threading.Semaphore(0)

    def sleep(_seconds: float) -> None:
        polled.release()
        turn.acquire()

    monkeypatch.setattr(rapl.time, "sleep", sleep)
    source.keep_alive()
    for _ in range(8):
        assert polled.acquire(timeout=60)
        add_joules(powercap / "intel-rapl:1", 75_000)
        clock.advance(1000)
        turn.release()
    assert polled.acquire(timeout=60)
    assert source.read_joules() == pytest.approx(600_000)


NAME, RANGE, COUNT = "name", "max_energy_range_uj", "energy_uj"


def strike(path: Path, fault: str | int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill a file with `fault`, let the kernel refuse it with that number, or remove it."""
    read_text = Path.read_text

    def read(self: Path, *args: Any, **kwargs: Any) -> str:
        if self == path and isinstance(fault, int):
            raise OSError(fault, os.strerror(fault))
        return read_text(self, *args, **kwargs)

    if isinstance(fault, str):
        path.write_text(fault)
    elif fault is None:
        path.unlink()
    monkeypatch.setattr(Path, "read_text", read)


FAULTS = [
    *((file, fault) for file in (NAME, RANGE, COUNT) for fault in (None, errno.EIO, "", "\n")),
    *((file, "n/a\n") for file in (RANGE, COUNT)),
    (RANGE, "0\n"),
]


@pytest.mark.parametrize("zone", ["intel-rapl:0", "intel-rapl:0:1"])
@pytest.mark.parametrize(("file", "fault"), FAULTS)
def test_a_zone_of_which_a_file_tells_nothing_is_no_source(
    file: str, fault: str | int | None, zone: str, powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = powercap / zone / file
    strike(path, fault, monkeypatch)
    with pytest.raises(SourceUnavailableError) as error:
        RaplSource("node", powercap)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not repeats_counters(powercap)


@pytest.mark.parametrize("fault", [None, errno.EIO, errno.EACCES, "", "n/a\n"])
def test_a_count_that_tells_nothing_during_a_run_is_a_loss(
    fault: str | int | None, powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RaplSource("node", powercap)
    source.read_joules()
    path = powercap / "intel-rapl:1" / COUNT
    strike(path, fault, monkeypatch)
    with pytest.raises(SourceLostError, match=f"RAPL: .*{path}"):
        source.read_joules()


def test_zones_whose_devices_a_container_masks_are_no_source(tmp_path: Path) -> None:
    """Docker puts an empty folder over /sys/devices/virtual/powercap: links to it lead nowhere."""
    (tmp_path / "intel-rapl:0").symlink_to(tmp_path / "devices" / "intel-rapl:0")
    with pytest.raises(SourceUnavailableError, match="intel-rapl:0/name: .*a container may hide"):
        RaplSource("node", tmp_path)


@pytest.mark.parametrize("fault", [None, errno.EIO, "", "-5\n"])
def test_a_limit_that_is_not_stated_is_none(
    fault: str | int | None, powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = powercap / "intel-rapl:1" / "constraint_0_max_power_uw"
    strike(path, fault, monkeypatch)
    source = RaplSource("node", powercap)
    assert source.read_joules() == 0
    assert source.info.max_power_watts is None


@pytest.mark.parametrize("file", [NAME, RANGE, COUNT])
def test_unreadable_counter_says_how_to_mend_it(
    file: str, powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = powercap / "intel-rapl:0" / file
    strike(path, errno.EACCES, monkeypatch)
    with pytest.raises(SourceUnavailableError, match=f"{path} .*root only.*Platypus.*chmod"):
        RaplSource("node", powercap)


def test_no_zones(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="virtual machine"):
        RaplSource("node", tmp_path)
