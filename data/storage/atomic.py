"""Files that are replaced in one step: readers, and a crash, see the old content or the new."""

import errno
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_path(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Write to a temporary file, then atomically replace `path` (fsync file and directory).

    The temporary file lies in the same directory; it is removed where writing fails. Without
    `sync`, no disk is waited for: readers and a killed process see the old content or the new, a
    machine that crashes may lose both.

    Raises:
        OSError: `path` is there and no regular file: a device would be replaced for all programs.
    """
    _check_replaceable(path)
    # Random, as process ids repeat on other nodes and in containers.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        yield temporary
        if sync:
            fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        fsync(path.parent)


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, then atomically replace `path` as `atomic_path` does."""
    with atomic_path(path, sync=sync) as temporary, temporary.open("xb") as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically with UTF-8 text."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace a file's content atomically with a JSON document; refuses NaN and infinity."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def check_writable(path: Path) -> None:
    """Check early that `path` can be written; raise the OSError that writing it would raise."""
    _check_replaceable(path)
    tempfile.TemporaryFile(dir=path.parent).close()


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # /dev/stdout is such a link: what it leads to may be a regular file, the link is everybody's.
    is_of_process = path.is_symlink() and path.readlink().is_relative_to("/proc")
    if is_of_process or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def fsync(path: Path) -> None:
    """Force a file's content, or a directory's entries (renames survive a crash), to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
