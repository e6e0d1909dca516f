"""Files and folders are whole or absent, whoever else is at work."""

import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from data.storage.atomic import give_name, locked, whole_file, whole_folder


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"first" * 9)
        second.write(b"second")
    assert path.read_bytes() == b"first" * 9
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_made_by_one_process_and_a_refusal_touches_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_folder(out) as root:
        (root / "file").write_text("whole")
        with (
            pytest.raises(DataError, match=r"out\.making: another process is building there"),
            whole_folder(out),
        ):
            pass
    assert (out / "file").read_text() == "whole"
    with pytest.raises(DataError, match="out: exists already"), whole_folder(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_left_by_a_killed_process_is_emptied(tmp_path: Path) -> None:
    (tmp_path / ".out.making" / "whole").mkdir(parents=True)
    (tmp_path / ".out.making" / "whole" / "half").touch()
    with whole_folder(tmp_path / "out") as root:
        assert not list(root.iterdir())


def test_a_name_taken_meanwhile_is_refused(tmp_path: Path) -> None:
    for name in ("root", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with pytest.raises(DataError, match="out: exists already"):
        give_name(tmp_path / "root", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        give_name(tmp_path / "root", tmp_path / "no" / "out")


def test_a_lock_removed_with_its_folder_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: Any) -> None:
        shutil.rmtree(tmp_path / "folder")

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(DataError, match="another process"), locked(tmp_path / "folder"):
        pass
