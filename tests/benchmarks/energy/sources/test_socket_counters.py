"""Dies of one socket: one counter under several names counts once, several counters are summed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.energy.source import Counter
from benchmarks.energy.sources import rapl
from benchmarks.energy.sources.rapl import RaplSource, repeats_counters
from benchmarks.energy.sources.socket_counters import SocketCounters
from tests.support.fake_meters import FakeClock
from tests.support.fake_powercap import RANGE_UJ, add_joules, make_zone

MODULUS = RANGE_UJ + 1


def dies(root: Path, *energies_uj: int, socket: int = 0, parts: bool = False) -> list[Path]:
    zones = []
    for die, energy_uj in enumerate(energies_uj):
        zone = f"intel-rapl:{4 * socket + die}"
        zones.append(make_zone(root, zone, f"package-{socket}-die-{die}", energy_uj))
        if parts:
            zones.append(make_zone(root, f"{zone}:0", "dram", energy_uj // 3))
    return zones


def test_dies_that_repeat_their_sockets_counter_count_once(tmp_path: Path) -> None:
    """Two sockets of twelve names each, as kernels show a Zen 4 EPYC's."""
    first = dies(tmp_path / "a", *[1_000_000] * 4)
    clock = FakeClock()
    source = RaplSource("node", tmp_path / "a", clock)
    assert source.read_joules() == 0
    clock.advance(10)
    for zone in first:
        add_joules(zone, 680)
    assert source.read_joules() == pytest.approx(680)
    assert source.info.max_power_watts == pytest.approx(200), "its limit counts once as well"
    assert "package-0-die-0 (intel-rapl:0)" in (source.info.note or "")
    assert "one counter, which counts once" in (source.info.note or "")
    assert repeats_counters(tmp_path / "a")


def test_dies_with_counters_of_their_own_are_summed(tmp_path: Path) -> None:
    one, two = dies(tmp_path, 1_000_000, 9_000_000)
    clock = FakeClock()
    source = RaplSource("node", tmp_path, clock)
    source.read_joules()
    clock.advance(10)
    for zone in (one, two):
        add_joules(zone, 340)
    assert source.read_joules() == pytest.approx(680)
    assert source.info.max_power_watts == pytest.approx(400)
    assert source.info.note is None
    assert not repeats_counters(tmp_path)


def test_counters_that_begin_alike_and_part_are_summed(tmp_path: Path) -> None:
    one, two = dies(tmp_path, 1_000_000, 1_000_000)
    clock = FakeClock()
    source = RaplSource("node", tmp_path, clock)
    source.read_joules()
    clock.advance(10)
    add_joules(one, 300)
    add_joules(two, 380)
    assert source.read_joules() == pytest.approx(680)
    assert source.info.note is None


def test_sockets_are_summed_and_memory_of_dies_is_told_apart_too(tmp_path: Path) -> None:
    """Both sockets read alike by chance: only zones of one socket may be one counter."""
    zones = [
        *dies(tmp_path, 1_000_000, 1_000_000, parts=True),
        *dies(tmp_path, 1_000_000, 1_000_000, socket=1, parts=True),
    ]
    clock = FakeClock()
    source = RaplSource("node", tmp_path, clock)
    source.read_joules()
    clock.advance(10)
    for zone in zones:
        add_joules(zone, 70 if zone.name.count(":") == 2 else 200)
    assert source.read_joules() == pytest.approx(2 * (200 + 70))


def test_two_sockets_without_dies_are_summed_though_they_read_alike(tmp_path: Path) -> None:
    zones = [make_zone(tmp_path, f"intel-rapl:{n}", f"package-{n}", 5) for n in range(2)]
    clock = FakeClock()
    source = RaplSource("node", tmp_path, clock)
    source.read_joules()
    clock.advance(1)
    for zone in zones:
        add_joules(zone, 50)
    assert source.read_joules() == pytest.approx(100)


def test_a_settled_counter_is_read_by_one_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones = dies(tmp_path, *[0] * 4)
    clock = FakeClock()
    source = RaplSource("node", tmp_path, clock)
    source.read_joules()
    clock.advance(10)
    for zone in zones:
        add_joules(zone, 680)
    source.read_joules()
    reads: list[str] = []
    read_count = rapl._read_count
    monkeypatch.setattr(
        rapl, "_read_count", lambda zone: reads.append(zone.name) or read_count(zone)
    )
    add_joules(zones[0], 20)
    assert source.read_joules() == pytest.approx(700)
    assert reads == ["intel-rapl:0"]


@given(
    start=st.integers(0, RANGE_UJ),
    steps=st.lists(st.integers(0, 10**8), min_size=1, max_size=6),
    delays=st.lists(st.integers(0, 4_000_000), min_size=3, max_size=3),
)
def test_one_counter_read_in_turn_is_one_whatever_comes_between(
    start: int, steps: list[int], delays: list[int]
) -> None:
    """Between two readings the counter may move by joules, and wrap anywhere."""
    clock = FakeClock()
    counters = [
        Counter(unit_joules=1e-6, moduli=(MODULUS,), max_watts=1000, clock=clock) for _ in range(3)
    ]
    socket = SocketCounters([Path(n) for n in "abc"], counters, RANGE_UJ)
    count = first = start
    for step in [0, *steps]:
        clock.advance(200)
        count += step
        first = count
        readings = []
        for delay in [0, *delays][: len(socket.zones_to_read)]:
            count += delay
            readings.append(count % MODULUS)
        joules = socket.add(readings)
    assert socket.are_one
    assert joules == pytest.approx((first - start) * 1e-6, abs=1e-6)
