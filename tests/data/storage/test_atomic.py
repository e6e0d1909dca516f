"""Files are replaced in one step or not at all, whoever else is at work."""

import os
import stat
from pathlib import Path

import pytest

from data.storage.atomic import atomic_file, atomic_path, check_writable, write_json, write_text


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Process ids would not tell them apart: two containers number their processes alike."""
    path = tmp_path / "file"
    with atomic_file(path) as first, atomic_path(path) as second:
        first.write(b"first" * 9)
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first" * 9
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \udc80")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_path_that_cannot_be_written_is_found_early(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "none" / "a")
    check_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
