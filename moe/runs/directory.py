"""A run's directory as its one writer holds it: locked, checked, and recoverable from a crash."""

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.storage.atomic import write_text
from data.storage.lock import FileLock, LocksUnsupportedError
from moe.config.experiment import Experiment, load_experiment, validated
from moe.config.locating import EXPERIMENT_FILE
from moe.errors import ConfigError
from moe.runs.files import CHECKPOINTS, LOCK, METRICS, ROWS, WRITTEN
from moe.runs.format import MetricsRow
from moe.runs.hub_files import carry_hub_files
from moe.runs.json_lines import Row, append_row, filter_rows, last_rows
from moe.runs.record import (
    RECORD_FORMAT,
    Record,
    read_record,
    read_record_if_any,
    write_record,
)

ROOM_AFTER_S = (0.1, 1.0, 4.0)
"""Pauses before a small file is tried again where the disk is full."""


class RunDirectory:
    """Exclusive access to one run's files; rank 0 holds it while the run lasts."""

    def __init__(self, path: Path, experiment: Experiment, *, resume: bool) -> None:
        """Lock the directory and write the experiment into it.

        Raises:
            ConfigError: Another process holds it; it belongs to another experiment; a file or
                folder in it is a link; or it holds a run and `resume` was not asked for. A run
                that failed before its first step leaves the directory free.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            refuse_links(path)
            self._lock = _lock(path)
        except OSError as error:
            raise ConfigError(
                f"run directory {path}: {error.strerror or error}: choose another with --run-dir"
            ) from None
        try:
            self._check_content(experiment, resume)
            write_text(path / EXPERIMENT_FILE, experiment.to_toml())
            carry_hub_files(experiment.train.init, path)
            self.record: Record = read_record_if_any(path)
        except BaseException:
            self.release()
            raise

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.path / CHECKPOINTS

    def _check_content(self, experiment: Experiment, resume: bool) -> None:
        earlier = self.path / EXPERIMENT_FILE
        if not earlier.is_file() or self._trained_nothing():
            return
        if not resume:
            raise ConfigError(
                f"run directory {self.path} already holds a run: continue it with --resume, or"
                " choose another with --run-dir"
            )
        if not load_experiment(earlier, follow_link=False).may_continue_as(experiment):
            raise ConfigError(
                f"run directory {self.path} holds another experiment: its model, data or training"
                " differ; choose another with --run-dir"
            )
        self.last_metrics()  # where it is checked, all ranks learn of it

    def _trained_nothing(self) -> bool:
        """Return whether every start so far failed before its first step."""
        has_checkpoint = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        begun = "ledger" in read_record_if_any(self.path)
        return not (begun or has_checkpoint or last_rows(self.path / METRICS, 1))

    def update(self, values: Mapping[str, Any]) -> None:
        """Merge `values` into the record, atomically; a failure is forgotten by the next start."""
        self.record = {"format": RECORD_FORMAT, **self.record, **values}
        if self.record.get("status") != "failed":
            self.record.pop("failure", None)
        _with_room(lambda: write_record(self.path, self.record))

    def append(self, file: str, row: Mapping[str, Any]) -> None:
        """Append one row to a file of rows, for example `METRICS`."""
        _with_room(lambda: append_row(self.path / file, row))

    def replace(self, file: str, text: str) -> None:
        """Replace a file's text, atomically."""
        _with_room(lambda: write_text(self.path / file, text))

    def last_row(self, file: str) -> Row | None:
        """Return the last complete row of a file of rows; None where there is none."""
        rows = last_rows(self.path / file, 1)
        return rows[0] if rows else None

    def last_metrics(self) -> Row | None:
        """Return the last complete metrics row; None where there is none.

        Raises:
            ConfigError: A value in it breaks a rule.
        """
        row = self.last_row(METRICS)
        if row is not None:
            validated(MetricsRow, row, f"{self.path / METRICS}: the last row", by_hand=False)
        return row

    def drop_rows_after(self, step: int, files: Sequence[str] = ROWS) -> None:
        """Drop rows later than `step`, which will be made again, and what a crash cut off."""
        for path in (self.path / name for name in files):
            if path.exists():
                filter_rows(path, lambda row: type(row.get("step")) is int and row["step"] <= step)

    def release(self) -> None:
        """Let others use the directory."""
        self._lock.release()


def refuse_links(path: Path) -> None:
    """Check that nothing a run writes is a symbolic link: it writes into itself alone.

    Raises:
        ConfigError: One is; names it.
        OSError: The directory cannot be read.
    """
    for inner in (path / name for name in WRITTEN):
        if inner.is_symlink():
            raise ConfigError(
                f"{inner}: a symbolic link, but a run writes only inside its directory: put the"
                " file or folder itself in its place, or choose another with --run-dir"
            )


def _with_room(write: Callable[[], None]) -> None:
    """Write a small file; a full disk may have room again once a checkpoint gave up.

    Raises:
        OSError: The storage refuses.
    """
    for pause_s in ROOM_AFTER_S:
        try:
            write()
            return
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
        time.sleep(pause_s)
    write()


def _lock(path: Path) -> FileLock:
    try:
        return FileLock(path / LOCK, wait=False)
    except BlockingIOError:
        problem, remedy = "is in use by another process", "wait for it, or choose"
    except LocksUnsupportedError as error:
        problem, remedy = f"cannot be locked ({error.strerror})", "choose"
    raise ConfigError(f"run directory {path} {problem}: {remedy} another with --run-dir")


@contextmanager
def ended_run(path: Path) -> Iterator[Record]:
    """Lock a run that has ended, so that it cannot be continued meanwhile; yields its record.

    Raises:
        ConfigError: It is still running, or not a run directory.
    """
    read_record(path)  # before a lock file appears in a directory that is no run's
    try:
        lock = FileLock(path / LOCK, wait=False)
    except BlockingIOError:
        raise ConfigError(f"{path}: still running: keep it when it has ended") from None
    with lock:
        yield read_record(path)
