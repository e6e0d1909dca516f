"""Power samples: the trapezoidal rule, silent loggers, damaged files."""

import math
from pathlib import Path

import pytest

from benchmarks.energy.samples.devices import not_siblings
from benchmarks.energy.samples.power_samples import PowerSamples, SampleFile
from benchmarks.energy.source import SourceLostError, SourceUnavailableError
from tests.support.power_log import write_power_log


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
    assert samples.joules(-1, 1) == pytest.approx(100 + 150)


def test_energy_is_additive_and_devices_are_summed(tmp_path: Path) -> None:
    rows = [(t, 300 + 100 * math.sin(t), "pdu-1") for t in range(100)]
    rows += [(t + 0.5, 50, "pdu-2") for t in range(100)]
    samples = SampleFile(write_power_log(tmp_path / "p.csv", *sorted(rows))).samples
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
        ("time,watts,device\n1,900,node\n1,400,accel0\n", '"node" and "accel0" may be a whole'),
        ("time,watts,device\n1,900,a1\n1,400,\n", '"a1" and "" may be a whole.*power_devices'),
        ("time,watts,outlet\n1,900,1\n", "column 'outlet'.*name it device"),
        ("time,watts\n1,5\n2,1,250\n", "line 3: 3 cells under 2 columns: .*thousands"),
    ],
)
def test_a_damaged_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(SourceUnavailableError, match=message) as error:
        SampleFile(path)
    assert "bad.csv" in str(error.value)


@pytest.mark.parametrize(
    ("names", "pair"),
    [
        (("cpu", "memory", "node"), ("cpu", "memory")),
        (("nid1/node", "nid2/node", "nid2/accel0"), ("nid1/node", "nid2/accel0")),
        (("psu-1", "psu-2", "Total"), ("psu-1", "Total")),
        (("server1", "server1-gpu0"), ("server1", "server1-gpu0")),
        (("node1", "node1/accel0"), ("node1", "node1/accel0")),
        (("PDU total", "outlet 1"), ("PDU total", "outlet 1")),
        (("rack1", "rack1.2"), ("rack1", "rack1.2")),
        (("node1", "node01"), ("node1", "node01")),
        (("A", "a"), ("A", "a")),
        (("node1", "node-3"), ("node1", "node-3")),
        (("psu1", "", "psu2"), ("psu1", "")),
        (("node1", "node2", "node30"), None),
        (("1", "2"), None),
        (("nid1/gpu0", "nid2/gpu0", "nid1/gpu1"), None),
        (("pdu",), None),
        (("",), None),
    ],
)
def test_only_siblings_are_summed_unasked(
    names: tuple[str, ...], pair: tuple[str, str] | None
) -> None:
    assert not_siblings(names) == pair


def test_the_devices_named_are_summed_and_no_others(tmp_path: Path) -> None:
    rows = [(t, w, name) for t in range(9) for name, w in
            ((" node", 900), ("gpu0", 300), ("gpu1 ", 200), ("gpu1x", 7))]  # fmt: skip
    path = write_power_log(tmp_path / "p.csv", *rows)
    assert SampleFile(path, ["node"]).samples.joules(0, 8) == pytest.approx(8 * 900)
    assert SampleFile(path, ("gpu0", " gpu1")).samples.joules(0, 8) == pytest.approx(8 * 500)
    with pytest.raises(SourceUnavailableError, match='no samples of "cpu".*: gpu0, node, gpu1, '):
        SampleFile(path, ["gpu0", "cpu"])


def test_a_file_that_is_replaced_or_cut_is_not_read_on(tmp_path: Path) -> None:
    rows = [(t, 5, "") for t in range(9)]
    for replace in (True, False):
        path = write_power_log(tmp_path / "p.csv", *rows)
        file = SampleFile(path)
        if replace:
            write_power_log(tmp_path / "q.csv", *rows, (9, 5, "")).replace(path)
        else:
            write_power_log(path, (9, 5, ""))
        with pytest.raises(SourceLostError, match="replaced or cut since it was read"):
            file.update()


def test_a_line_is_read_once_it_has_ended(tmp_path: Path) -> None:
    path = write_power_log(tmp_path / "p.csv", (0, 5, "a"), (1, 5, "a"))
    file = SampleFile(path)
    for text, newest_s in (("2,1", 1), ("50,a", 1), ("\n3,5,a\n\n", 3)):
        with path.open("a") as log:
            log.write(text)
        assert file.update().newest_s == newest_s
    assert file.samples.devices["a"][2] == (2, 150)
    with path.open("a") as log:
        log.write("4,5,b\n")
    for _ in range(2):
        with pytest.raises(SourceLostError, match='devices "a" and "b"'):
            file.update()


def test_sensors_that_always_agree_are_noted(tmp_path: Path) -> None:
    rows = [(t, 300 + t, name) for t in range(12) for name in ("gpu0", "gpu1")]
    path = write_power_log(tmp_path / "p.csv", *rows)
    note = SampleFile(path).samples.info(path, note="samples").note
    assert note is not None
    assert note.startswith("samples; gpu0 and gpu1 read the same in every sample")
    apart = write_power_log(tmp_path / "q.csv", *rows, (12, 1.0, "gpu0"), (12, 2.0, "gpu1"))
    assert SampleFile(apart).samples.info(path, note="samples").note == "samples"
