"""RAPL against a powercap tree in a temporary directory, and the choice among meters."""

import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.energy import source_rapl, source_selection
from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from benchmarks.energy.source_rapl import RaplSource
from benchmarks.energy.source_selection import choose_source
from benchmarks.errors import BenchmarkError
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import RankContext
from tests.support.fake_meters import FakeClock, Rank, Ranks

RANGE_UJ = 262_143_328_850


def zone(root: Path, name: str, kind: str, energy_uj: int, *, max_watts: int = 200) -> Path:
    path = root / name
    path.mkdir(parents=True)
    (path / "name").write_text(f"{kind}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (path / "constraint_0_max_power_uw").write_text(f"{max_watts * 10**6}\n")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two packages, one with DRAM and cores; `psys` and the mmio view count the same again."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 900_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    return tmp_path


def add(path: Path, joules: float) -> None:
    count = int((path / "energy_uj").read_text()) + round(joules * 1e6)
    (path / "energy_uj").write_text(f"{count % (RANGE_UJ + 1)}\n")


def test_packages_and_dram_count_once(tree: Path) -> None:
    clock = FakeClock()
    source = RaplSource("node", tree, clock)
    assert source.read_joules() == 0
    clock.advance(1)
    for name, joules in [("intel-rapl:0", 50), ("intel-rapl:0:0", 40), ("intel-rapl:0:1", 7),
                         ("intel-rapl:1", 60), ("intel-rapl:2", 130)]:  # fmt: skip
        add(tree / name, joules)
    assert source.read_joules() == pytest.approx(117)
    assert source.info.boundary == "CPU packages and DRAM"
    assert source.info.max_power_watts == pytest.approx(600)
    assert source.info.scope == "node"


def test_wrap_around(tree: Path) -> None:
    (tree / "intel-rapl:1" / "energy_uj").write_text(f"{RANGE_UJ - 30_000_000}\n")
    clock = FakeClock()
    source = RaplSource("node", tree, clock)
    source.read_joules()
    clock.advance(1)
    add(tree / "intel-rapl:1", 100)
    assert source.read_joules() == pytest.approx(100)


def test_a_fall_that_no_wrap_explains_is_a_loss(tree: Path) -> None:
    clock = FakeClock()
    source = RaplSource("node", tree, clock)
    source.read_joules()
    clock.advance(1)
    (tree / "intel-rapl:1" / "energy_uj").write_text("0\n")
    with pytest.raises(SourceLostError, match="reset"):
        source.read_joules()


def test_a_silence_in_which_the_counter_may_have_wrapped_is_a_loss(tree: Path) -> None:
    clock = FakeClock()
    source = RaplSource("node", tree, clock)
    source.read_joules()
    clock.advance(262_143 / 200 + 1)
    with pytest.raises(SourceLostError, match="wrapped unseen"):
        source.read_joules()


def test_the_poll_fills_the_silence(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a long step only the thread reads; more than two wraps' worth must all arrive."""
    clock = FakeClock()
    source = RaplSource("node", tree, clock)
    source.read_joules()
    polled = threading.Semaphore(0)
    turn = threading.Semaphore(0)

    def sleep(_seconds: float) -> None:
        polled.release()
        turn.acquire()

    monkeypatch.setattr(source_rapl.time, "sleep", sleep)
    source.keep_alive()
    for _ in range(8):
        assert polled.acquire(timeout=60)
        add(tree / "intel-rapl:1", 75_000)
        clock.advance(1000)
        turn.release()
    assert polled.acquire(timeout=60)
    assert source.read_joules() == pytest.approx(600_000)


def test_unreadable_counter_says_how_to_mend_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_zone: Path) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(source_rapl, "_read_count", refuse)
    with pytest.raises(SourceUnavailableError, match="root only.*Platypus.*chmod"):
        RaplSource("node", tree)


def test_no_zones(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="virtual machine"):
        RaplSource("node", tmp_path)


def cpu_place(tmp_path: Path) -> RankContext:
    place = Ranks([Rank(lambda: None, FakeClock())], tmp_path).place(0)
    return replace(place, device="cpu", hostname=socket.gethostname())


def test_auto_takes_the_counter_and_names_what_it_passed_over(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        source_selection.OPENERS, "rapl", lambda _c, place: RaplSource(place.hostname, tree)
    )
    choice = choose_source(EnergyConfig(), cpu_place(tmp_path))
    assert choice.source is not None
    assert choice.source.info.name == "rapl"
    assert choice.not_taken == {"nvml": "the run computes on no GPU"}


def test_auto_falls_back_to_the_model_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "powercap"
    monkeypatch.setitem(
        source_selection.OPENERS, "rapl", lambda _c, place: RaplSource(place.hostname, empty)
    )
    choice = choose_source(EnergyConfig(), cpu_place(tmp_path))
    assert choice.source is not None
    assert choice.source.info.kind == "modelled"
    assert "no RAPL zones" in choice.not_taken["rapl"]


def test_asked_for_by_name_and_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        source_selection.OPENERS, "rapl", lambda _c, place: RaplSource("node", tmp_path / "none")
    )
    with pytest.raises(BenchmarkError, match='energy.source = "rapl".*no RAPL zones'):
        choose_source(EnergyConfig(source="rapl"), cpu_place(tmp_path))
