"""A run's directory: who may write it, and what its record says of the code."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe.errors import ConfigError
from moe.runs.directory import RunDirectory
from moe.runs.record import new_record

EXPERIMENT: Any = SimpleNamespace(name="a", content_hash="0123abcd")


def test_run_directory_that_cannot_be_locked_is_reported(tmp_path: Path) -> None:
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
    assert new_record(EXPERIMENT)["git"]["dirty"] is False
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert all(call.startswith("--no-optional-locks ") for call in calls)
