"""The code that jobs import: a recorded copy, so that editing on goes unnoticed by waiting jobs."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data.storage.atomic import write_json
from moe.runs.source_state import CHECKOUT, SNAPSHOT
from slurm.errors import JobError

CODE = ("moescale.py", "moe", "parallel", "data", "benchmarks", "slurm", "pyproject.toml")
"""What a run imports, relative to the checkout."""
EDITOR_LOCKS = ".#*"
"""Links to nowhere that an editor makes beside a file that it changes."""


@dataclass(frozen=True, kw_only=True)
class CodeSnapshot:
    """A stored copy of the code."""

    path: Path
    """Folder that goes on `PYTHONPATH`."""
    tree: str
    """Hash of the content; equal code gives an equal one."""
    commit: str | None
    """Commit it is based on; none outside a git checkout."""
    dirty: bool | None
    """Whether it differs from that commit; the difference is in `changes.diff`."""


def read_code(folder: Path, checkout: Path = CHECKOUT) -> CodeSnapshot:
    """Copy the code, uncommitted changes and new files included, into an empty folder.

    Raises:
        JobError: git fails.
    """
    target = folder / "code"
    read = _read_git if (checkout / ".git").exists() else _read_plain
    commit, diff = read(checkout, target)
    tree = _content_hash(target)
    dirty = None if diff is None else bool(diff)
    (target / "changes.diff").write_bytes(diff or b"")
    record = {"tree": tree, "commit": commit, "dirty": dirty, "checkout": str(checkout)}
    write_json(target / SNAPSHOT, record)
    return CodeSnapshot(path=target, tree=tree, commit=commit, dirty=dirty)


def store_code(snapshot: CodeSnapshot, store: Path) -> CodeSnapshot:
    """Put a snapshot into `store/<tree>`, unless equal code is there already."""
    final = store / snapshot.tree
    if not final.exists():
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".partial-") as work:
            copy = Path(work) / "code"
            shutil.copytree(snapshot.path, copy, symlinks=True)
            try:
                copy.rename(final)
            except OSError:  # another submission was faster
                if not final.exists():
                    raise
    # Equal content may have been committed since: what earlier jobs recorded stays.
    kept = json.loads((final / SNAPSHOT).read_text())
    return CodeSnapshot(path=final, tree=kept["tree"], commit=kept["commit"], dirty=kept["dirty"])


def _read_git(checkout: Path, target: Path) -> tuple[str | None, bytes | None]:
    """Write the working tree's code through an index and object store of our own."""
    scratch = target.parent / "git"
    (scratch / "objects").mkdir(parents=True)
    objects = _git(checkout, "rev-parse", "--path-format=absolute", "--git-path", "objects")
    env = {
        "GIT_INDEX_FILE": str(scratch / "index"),
        "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects.decode().strip(),
    }
    there = [name for name in CODE if (checkout / name).exists()]
    _git(checkout, "read-tree", "HEAD", env=env)
    _git(checkout, "add", "--all", "--", *there, f":(exclude,glob)**/{EDITOR_LOCKS}", env=env)
    tree = _git(checkout, "write-tree", env=env).decode().strip()
    diff = _git(checkout, "diff", "--cached", "--binary", "HEAD", "--", *there, env=env)
    archive = _git(checkout, "archive", "--format=tar", tree, "--", *there, env=env)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        try:
            tar.extractall(target, filter="data")
        except tarfile.FilterError as error:
            raise JobError(f"code snapshot of {checkout}: {error}: remove it, or copy it") from None
    return _git(checkout, "rev-parse", "HEAD").decode().strip(), diff


def _read_plain(checkout: Path, target: Path) -> tuple[None, None]:
    target.mkdir()
    for name in CODE:
        source = checkout / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", EDITOR_LOCKS)
            shutil.copytree(source, target / name, symlinks=True, ignore=ignore)
        elif source.exists():
            shutil.copy2(source, target / name)
    return None, None


def _git(checkout: Path, *arguments: str, env: Mapping[str, str] | None = None) -> bytes:
    done = subprocess.run(
        ["git", "-C", str(checkout), *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise JobError(f"code snapshot of {checkout}: git {arguments[0]}: {said[-1]}")
    return done.stdout


def _content_hash(folder: Path) -> str:
    """Return twelve hexadecimal digits of all names and contents."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:12]
