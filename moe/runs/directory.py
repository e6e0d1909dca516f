"""A run's directory: who may write it, what is in it, and how it survives a crash."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import moe
from data.storage.atomic import write_json, write_text
from data.storage.lock import FileLock, LocksUnsupportedError
from moe.config.experiment import Experiment
from moe.errors import ConfigError

RECORD_FORMAT = 1
CHECKOUT = Path(moe.__file__).resolve().parents[1]
"""The tree this code runs from: a git checkout, or the copy that a cluster job took along."""
_PACKAGES = ("moescale", "torch", "megatron-core", "numpy", "pyarrow", "tokenizers",
             "transformer-engine", "apex")  # fmt: skip


class RunDirectory:
    """Exclusive access to one run's files; rank 0 holds it while the run lasts."""

    def __init__(self, path: Path, experiment: Experiment, *, resume: bool) -> None:
        """Claim the directory.

        Raises:
            ConfigError: Another process holds it; it belongs to another experiment; or it holds
                a run and `resume` was not asked for.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = self._claim()
        except OSError as error:
            raise ConfigError(
                f"run directory {path}: {error.strerror or error}: choose another with --run-dir"
            ) from None
        try:
            self._check_content(experiment, resume)
            write_text(path / "experiment.toml", experiment.to_toml())
            self.record: dict[str, Any] = self._read_record()
        except BaseException:
            self.release()
            raise

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def _claim(self) -> FileLock:
        try:
            return FileLock(self.path / ".lock", wait=False)
        except BlockingIOError:
            problem, remedy = "is in use by another process", "wait for it, or choose"
        except LocksUnsupportedError as error:
            problem, remedy = f"cannot be locked ({error.strerror})", "choose"
        raise ConfigError(f"run directory {self.path} {problem}: {remedy} another with --run-dir")

    def _check_content(self, experiment: Experiment, resume: bool) -> None:
        kept = self.path / "experiment.toml"
        if not kept.is_file():
            return
        if not resume:
            raise ConfigError(
                f"run directory {self.path} already holds a run: continue it with --resume, or"
                " choose another with --run-dir"
            )
        from moe.config.experiment import load_experiment

        if not load_experiment(kept).may_continue_as(experiment):
            raise ConfigError(
                f"run directory {self.path} holds another experiment: its model, data or training"
                " differ; choose another with --run-dir"
            )

    def _read_record(self) -> dict[str, Any]:
        path = self.path / "record.json"
        if not path.is_file():
            return {}
        try:
            record: dict[str, Any] = json.loads(path.read_text())
        except ValueError:
            raise ConfigError(f"{path}: damaged: not JSON") from None
        return record

    def update(self, values: Mapping[str, Any]) -> None:
        """Merge `values` into `record.json`, atomically."""
        self.record = {"format": RECORD_FORMAT, **self.record, **values}
        write_json(self.path / "record.json", self.record)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one JSON line to `<name>.jsonl`."""
        with (self.path / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def last_row(self, name: str) -> dict[str, Any] | None:
        """Return the last whole row of `<name>.jsonl`; None where there is none."""
        path = self.path / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        whole = [line for line in lines if _row_step(line) != float("inf")]
        return json.loads(whole[-1]) if whole else None

    def forget_after(self, step: int) -> None:
        """Drop rows later than `step`: they will be trained again."""
        for path in self.path.glob("*.jsonl"):
            rows = [line for line in path.read_text().splitlines() if _row_step(line) <= step]
            write_text(path, "".join(f"{line}\n" for line in rows))

    def release(self) -> None:
        """Let others use the directory."""
        self._lock.release()


def _row_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def describe_start(experiment: Experiment) -> dict[str, Any]:
    """Return what the record says of the start: time, command, software, commit, machine."""
    return {
        "run_id": f"{experiment.name}-{experiment.content_hash}",
        "name": experiment.name,
        "status": "running",
        "started_at": now(),
        "finished_at": None,
        "command": " ".join(sys.argv),
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: _version(name) for name in _PACKAGES},
        },
        "git": _git_state(),
    }


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any]:
    """Return commit and whether the tree differs from it; nulls outside a git checkout."""
    snapshot = CHECKOUT / "snapshot.json"
    if snapshot.is_file():  # a cluster job's copy of the code (slurm/job/code_snapshot.py)
        kept = json.loads(snapshot.read_text())
        return {"commit": kept["commit"], "dirty": kept["dirty"]}

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(CHECKOUT), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
        status = git("status", "--porcelain")
    except FileNotFoundError:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": None if status is None else bool(status)}
