"""A file of power samples is looked at before a run, or a job, starts."""

import os
from pathlib import Path

import pytest

from moe.config.power_csv import MAX_POWER_CSV_BYTES, check_power_csv, parse_row
from moe.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory: start its logger first"),
        ("", "no column time, watts: its first line must name"),
        ("when,watts\n1,2\n", "no column time: its first line must name"),
        ("1764412345,300\n", "no column time, watts"),
        ("time,watts,watts \n", "two columns 'watts': leave one"),
        ("time,watts,host\n", "a column 'host', but only time, watts, device are read"),
        ("time,watts,\n", "a column '', but only"),
        ('time,"watts\n', "not CSV"),
        ("time;watts\n", "no column time, watts"),
    ],
)
def test_a_file_that_is_no_log_of_power_is_refused(
    text: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "pdu.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refusal:
        check_power_csv(path)
    assert str(refusal.value).startswith(f"energy.power_csv = {path}: ")


def test_case_order_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "pdu.csv"
    path.write_text("\ufeffWatts, Time ,device\n")
    check_power_csv(path)


def test_only_a_regular_file_of_some_size_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        check_power_csv(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"= {path}: not a regular file: start its logger"):
            check_power_csv(path)
    long = tmp_path / "long.csv"
    long.write_text("time,watts\n")
    os.truncate(long, MAX_POWER_CSV_BYTES + 1)  # sparse
    with pytest.raises(ConfigError, match="longer than 1024 MiB: cut it to the time of the run"):
        check_power_csv(long)
    long.write_bytes("time,watts\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="not UTF-8: save it as CSV in UTF-8"):
        check_power_csv(long)


COLUMNS = ["time", "watts", "device"]


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        (b"1764412345.25,1250.5,pdu\n", ("pdu", 1764412345.25, 1250.5)),
        (b" 1 , 2.5e2 , a b \r\n", ("a b", 1, 250)),
        (b'"1"," 5","a, b "\n', ("a, b", 1, 5)),
        (b"1970-01-01T00:00:01,5,\n", ("", 1, 5)),
        (b"1970-01-01T01:00:01+01:00,.5,\n", ("", 1, 0.5)),
        (b"\r\n", None),
    ],
)
def test_a_row_is_read(line: bytes, sample: tuple[str, float, float] | None) -> None:
    assert parse_row(COLUMNS, line) == sample


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1,1,250,a\n", "4 cells under 3 columns: .*no separator of thousands"),
        (b"1,250\n", "2 cells under 3 columns"),
        (b'1,"1,250",a\n', "watts '1,250' is no number"),
        (b"1,1_0,a\n", "watts '1_0' is no number"),
        (b"1,250 W,a\n", "is no number such as 1250.5"),
        (b"1,,a\n", "watts '' is no number"),
        (b"1,inf,a\n", "is no number"),
        (b"1,nan,a\n", "is no number"),
        ("1,٢٥,a\n".encode(), "is no number"),
        (b"1,0x1F,a\n", "is no number"),
        (b"1,1e300,a\n", "1e[+]300 W is no power"),
        (b"1,1e999,a\n", "inf W is no power"),
        (b"1,-1,a\n", "-1 W is no power"),
        (b"1_0,5,a\n", "time '1_0' is neither Unix seconds nor ISO 8601"),
        (b"inf,5,a\n", "time 'inf' is neither"),
        (b"1764412345000,5,a\n", "is neither Unix seconds nor"),  # milliseconds
        (b"29.11.2026 12:00,5,a\n", "is neither Unix seconds nor"),
        (b'1,5,"a\n', "not CSV"),
        (b'1,5,"a"b\n', "not CSV"),
        (b"1,5,\xff\n", "not UTF-8"),
        (b"1,5," + b"a" * 81 + b"\n", "a device's name of more than 80 characters"),
    ],
)
def test_a_row_that_is_not_certain_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_row(COLUMNS, line)
