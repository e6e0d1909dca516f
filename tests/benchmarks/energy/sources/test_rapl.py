"""RAPL against a powercap tree in a temporary directory."""

import threading
from pathlib import Path

import pytest

from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.sources import rapl
from benchmarks.energy.sources.rapl import RaplSource
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


def test_unreadable_counter_says_how_to_mend_it(
    powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_zone: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(rapl, "_read_count", refuse)
    with pytest.raises(SourceUnavailableError, match="root only.*Platypus.*chmod"):
        RaplSource("node", powercap)


def test_no_zones(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="virtual machine"):
        RaplSource("node", tmp_path)
