"""Which code runs: the commit, and whether the tree differs from it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import moe

CHECKOUT = Path(moe.__file__).resolve().parents[1]
"""The tree this code runs from: a git checkout, or the copy that a cluster job took along."""
SNAPSHOT = "snapshot.json"
"""In such a copy, the state of the checkout it was made from (slurm/job/code_snapshot.py)."""
RESULTS = "benchmarks/results"
"""What benchmarks write into the checkout: another result is no other code."""


def source_state() -> dict[str, Any]:
    """Return commit and whether the tree differs from it; nulls outside a git checkout."""
    snapshot = CHECKOUT / SNAPSHOT
    if snapshot.is_file():
        copied = json.loads(snapshot.read_text())
        return {"commit": copied["commit"], "dirty": copied["dirty"]}
    try:
        commit = _git("rev-parse", "HEAD")
        status = _git("status", "--porcelain", "--", ".", f":(exclude){RESULTS}")
    except FileNotFoundError:  # git is not installed
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def _git(*arguments: str) -> str | None:
    """Return git's output, or None where it fails."""
    done = subprocess.run(
        # A lock would make somebody's `git commit` in the checkout fail.
        ["git", "--no-optional-locks", "-C", str(CHECKOUT), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else None
