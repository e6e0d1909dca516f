"""Directories are complete or absent, and made by one process at a time."""

from pathlib import Path

import pytest

from data.errors import DataError
from data.storage.new_directory import new_directory, publish_directory


def test_a_directory_is_made_by_one_process_and_a_refusal_touches_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_directory(out) as partial:
        (partial / "file").write_text("complete")
        with (
            pytest.raises(DataError, match=r"out\.making: another process is building there"),
            new_directory(out),
        ):
            pass
    assert (out / "file").read_text() == "complete"
    with pytest.raises(DataError, match="out: exists already"), new_directory(out):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_left_by_a_killed_process_is_emptied(tmp_path: Path) -> None:
    (tmp_path / ".out.making" / "whole").mkdir(parents=True)
    (tmp_path / ".out.making" / "whole" / "half").touch()
    with new_directory(tmp_path / "out") as partial:
        assert not list(partial.iterdir())


def test_a_name_taken_meanwhile_is_refused(tmp_path: Path) -> None:
    for name in ("partial", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with pytest.raises(DataError, match="out: exists already"):
        publish_directory(tmp_path / "partial", tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        publish_directory(tmp_path / "partial", tmp_path / "no" / "out")
