"""Files that are whole or absent, and a run's directory on a disk that does not take them."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe.errors import ConfigError
from moe.runs.directory import RunDirectory, describe_start
from moe.storage.atomic import check_writable, replacing, write_text

EXPERIMENT: Any = SimpleNamespace(name="a", content_hash="0123abcd")


def test_writers_with_one_process_id_do_not_meet(tmp_path: Path) -> None:
    """Two containers on one shared file system number their processes alike."""
    path = tmp_path / "a"
    with replacing(path) as first, replacing(path) as second:
        second.write_text("second")
        first.write_text("first")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_is_readable_as_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_place_that_cannot_be_written_is_met_early(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_writable(tmp_path / "none" / "a")
    check_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_run_directory_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()  # as one that belongs to someone else, which root could open
    with pytest.raises(ConfigError, match=r"run directory .*: choose another with --run-dir"):
        RunDirectory(tmp_path, EXPERIMENT, resume=False)


def test_record_of_a_commit_takes_no_lock_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it did, somebody's `git commit` in the checkout would fail."""
    git = tmp_path / "git"
    git.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert describe_start(EXPERIMENT)["git"]["dirty"] is False
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert all(call.startswith("--no-optional-locks ") for call in calls)
