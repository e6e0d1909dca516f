"""The front door: fast, light, guarded, and one line for a user's mistake."""

import subprocess
import sys
from pathlib import Path

import pytest

import moescale

HEAVY = ("torch", "numpy", "megatron", "pyarrow", "pandas")


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("action", ["", "moescale.app(['--help'], standalone_mode=False)"])
def test_front_door_loads_nothing_heavy(action: str) -> None:
    code = f"import sys, moescale\n{action}\nprint('LOADED', set(sys.modules) & set({HEAVY!r}))"
    assert run_python(code).splitlines()[-1] == "LOADED set()"


def test_guard_names_the_intruder(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=rf"instead of .*moe: set PYTHONPATH={tmp_path}"):
        moescale.guard_rooms(tmp_path)
