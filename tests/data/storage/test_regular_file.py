"""Only regular files are opened: a FIFO or a device under a file's name hangs no reader."""

import os
import socket
from pathlib import Path

import pytest

from data.errors import DataError
from data.storage.checksums import file_sha256
from data.storage.regular_file import (
    append_regular,
    copy_tree,
    open_regular,
    read_regular,
)


def test_reads_a_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 7, follow_link=False) == b"content"
    assert read_regular(tmp_path / "link", 7) == b"content"


def test_does_not_follow_a_link_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="a symbolic link: put the file itself in its place"):
        open_regular(tmp_path / "link", follow_link=False)


@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_refuses_what_is_no_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 bytes
            listener.bind("file")
        else:
            path = Path("/dev/zero")
        for read in (open_regular, file_sha256):
            with pytest.raises(OSError, match="not a regular file"):
                read(path)


def test_refuses_what_is_no_name(tmp_path: Path) -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="not a file name"):
            open_regular(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")


def test_reads_no_more_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    with pytest.raises(OSError, match="longer than 7 bytes"):
        read_regular(tmp_path / "file", 7)
    os.truncate(tmp_path / "file", 1 << 40)  # sparse
    with pytest.raises(OSError, match="longer than 1 MiB"):
        read_regular(tmp_path / "file", 1 << 20)


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_a_copy_brings_in_no_file_from_elsewhere(tmp_path: Path, kind: str) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "file").write_bytes(b"content")
    copy_tree(tmp_path / "folder", tmp_path / "copy")
    assert (tmp_path / "copy" / "inner" / "file").read_bytes() == b"content"
    if kind == "fifo":
        os.mkfifo(tmp_path / "folder" / "inner" / "other")
    else:
        (tmp_path / "folder" / "inner" / "other").symlink_to(tmp_path)
    with pytest.raises(DataError, match="inner/other: (not a regular file|a symbolic link)"):
        copy_tree(tmp_path / "folder", tmp_path / "again")


@pytest.mark.parametrize("kind", ["fifo", "read fifo", "link", "dangling link", "device"])
def test_writes_at_the_end_of_its_own_file_alone(tmp_path: Path, kind: str) -> None:
    path, outside = tmp_path / "file", tmp_path / "outside"
    for line in (b"one\n", b"two\n"):
        with append_regular(path) as file:
            file.write(line)
    content = path.rename(outside).read_bytes()
    assert content == b"one\ntwo\n"
    reader = None
    if "fifo" in kind:
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if kind == "read fifo" else None
    elif kind == "device":
        path = Path("/dev/full")
    else:
        path.symlink_to(outside if kind == "link" else tmp_path / "nothing")
    with pytest.raises(OSError, match="a symbolic link|not a regular file"):
        append_regular(path)
    if reader is not None:
        os.close(reader)
    assert outside.read_bytes() == content
    assert not (tmp_path / "nothing").exists()
