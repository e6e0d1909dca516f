"""JSON lines: complete rows are read, a cut-off end is left out, damage is named."""

import json
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe.errors import ConfigError
from moe.runs.json_lines import append_row, filter_rows, last_rows, read_rows

ROWS = [{"step": step, "loss": 1 / step} for step in range(1, 6)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    for row in ROWS:
        append_row(tmp_path / "metrics.jsonl", row)
    return tmp_path / "metrics.jsonl"


def extend(file: Path, text: bytes) -> None:
    file.write_bytes(file.read_bytes() + text)


def test_rows_are_read_as_they_were_written(file: Path) -> None:
    assert read_rows(file, ("step", "loss")) == ROWS
    assert read_rows(file.with_name("none.jsonl")) == []


@pytest.mark.parametrize("end", [b'{"step": 6, "lo', b"{", b"\0\0\0", b'{"name": "\xc3'])
def test_a_cut_off_end_is_left_out(end: bytes, file: Path) -> None:
    extend(file, end)
    assert read_rows(file) == ROWS
    assert last_rows(file, 2) == ROWS[-2:]
    filter_rows(file, lambda row: row["step"] != 2)
    assert read_rows(file) == [ROWS[0], *ROWS[2:]]
    assert file.read_bytes().endswith(b"}\n")


def test_a_first_row_cut_off_leaves_none(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "lo')
    assert read_rows(file) == last_rows(file, 3) == []


def test_a_row_without_the_end_of_its_line_is_complete(file: Path) -> None:
    extend(file, json.dumps({"step": 6}).encode())
    assert [row["step"] for row in read_rows(file)] == [1, 2, 3, 4, 5, 6]
    assert last_rows(file, 2) == [ROWS[-1], {"step": 6}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"step": 1}\n{"st\n{"step": 3}\n', "line 2 is damaged"),
        (b'{"step": 1}\n[1]\n', "line 2 is damaged"),
        (b'{"step": 1}\n\n{"step": 3}\n', "line 2 is damaged"),
        (b'{"name": "\xe9"}\n', "line 1 is damaged"),
        (b"nothing of the kind", "line 1 is damaged"),
        (b'{"step": 1}\n{"stop": 2}\n', "line 2 lacks step"),
    ],
)
def test_damage_is_named(text: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        read_rows(file, ("step",))


def test_a_directory_is_no_file_of_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        read_rows(tmp_path)


@pytest.mark.parametrize("width", [1, 1000, 40_000])
def test_last_rows_are_read_from_the_end(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long rows are; of a large file only its end is read."""
    file = tmp_path / "metrics.jsonl"
    rows: list[dict[str, Any]] = [{"step": step, "text": "x" * width} for step in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for count in (1, 3, 20, 40, 60):
        assert last_rows(file, count) == rows[-count:]
    damaged = file.read_bytes().replace(b'{"step": 0,', b'{"step": 0;')
    file.write_bytes(damaged)
    assert last_rows(file, 3) == rows[-3:]


def test_rows_that_are_kept_stay_as_they_are(file: Path) -> None:
    before = file.read_bytes()
    filter_rows(file, lambda row: row["step"] <= 3)
    assert file.read_bytes() == b"".join(before.splitlines(keepends=True)[:3])


@contextmanager
def room_for(file: Path, num_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond this one's size and some bytes."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_row_that_storage_cuts_off_is_not_there(file: Path) -> None:
    content = file.read_bytes()
    with room_for(file, 7), pytest.raises(OSError, match="File too large"):
        append_row(file, {"step": 6, "loss": 0.5})
    assert file.read_bytes() == content


def test_rows_are_appended_to_no_link(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="a symbolic link: put the file itself in its place"):
        append_row(tmp_path / "metrics.jsonl", {"step": 1})
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("is_read", [False, True])
def test_a_fifo_in_place_of_the_rows_hangs_no_writer(is_read: bool, file: Path) -> None:
    file.unlink()
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK) if is_read else None
    try:
        with pytest.raises(OSError, match="not a regular file"):
            append_row(file, {"step": 6})
        if reader is not None:
            assert os.read(reader, 1) == b""
    finally:
        if reader is not None:
            os.close(reader)


@given(st.recursive(st.floats(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_rows_are_json_whatever_was_measured(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        append_row(file, {"step": 1, "value": value})
        json.loads(file.read_text(), parse_constant=pytest.fail)
