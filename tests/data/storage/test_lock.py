"""A lock has one holder, and one that was removed has none."""

import errno
import fcntl
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.storage.lock import FileLock, locked_directory


def test_a_lock_has_one_holder_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(path)
    with pytest.raises(BlockingIOError):
        FileLock(path, wait=False)
    releasing = threading.Timer(0.05, lock.release)
    releasing.start()
    with FileLock(path):  # waits
        releasing.join()
    FileLock(path, wait=False).release()


def test_a_lock_removed_with_its_directory_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: Any) -> None:
        shutil.rmtree(tmp_path / "folder")

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(DataError, match="another process"), locked_directory(tmp_path / "folder"):
        pass


def test_a_file_system_without_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(DataError, match=r"cannot be locked \(No locks available\)"),
        locked_directory(tmp_path / "folder"),
    ):
        pass


def test_a_link_creates_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic link"):
        FileLock(tmp_path / "lock")
    assert not (tmp_path / "outside").exists()
