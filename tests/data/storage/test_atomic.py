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


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    """A device's or a pipe's name belongs to all programs; a temporary file must not take it."""
    pipe, link, of_process = tmp_path / "pipe", tmp_path / "link", tmp_path / "of_process"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    of_process.symlink_to("/proc/self/fd/1")
    for path in (pipe, link, of_process):
        for write in (check_writable, lambda path: write_text(path, "text")):
            with pytest.raises(OSError, match="not a regular file"):
                write(path)
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "text")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert of_process.is_symlink()
    assert len(list(tmp_path.iterdir())) == 3
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "usual").symlink_to(file)
    write_text(tmp_path / "usual", "text")
    assert (tmp_path / "usual").read_text() == "text"


def test_path_that_cannot_be_written_is_found_early(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "none" / "a")
    check_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
