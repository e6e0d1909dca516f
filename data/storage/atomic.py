"""Files that appear whole or not at all."""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data.errors import DataError

CHUNK_BYTES = 1 << 20


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, flush it to disk, then rename it."""
    with whole_file(path) as file:
        file.write(text.encode())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only once it is complete and on disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (new names) to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashingFile:
    """A write-only binary file that knows the SHA-256 and number of the bytes written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.num_bytes = 0
        self.closed = False

    @property
    def sha256(self) -> str:
        """Hash of everything written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self._digest.update(data)
        self.num_bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Flush the file below."""
        self._file.flush()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, or take the one that is there, for this process alone.

    Raises:
        DataError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(folder) from None
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be locked ({error.strerror}): choose another file system"
            ) from None
        # Whoever held it before may have removed the folder since the lock was opened.
        if not os.fstat(file.fileno()).st_nlink:
            raise _busy(folder)
        yield


def _busy(folder: Path) -> DataError:
    return DataError(f"{folder}: another process is building there: let it finish")


def refuse_existing(out: Path) -> None:
    """Refuse to make what is there.

    Raises:
        DataError: It exists.
    """
    if out.exists():
        raise DataError(f"{out}: exists already: remove it or choose another name")


def give_name(root: Path, out: Path) -> None:
    """Rename a complete folder, durably.

    Raises:
        DataError: The name was taken meanwhile.
    """
    sync_folder(root)
    try:
        root.rename(out)
    except OSError:
        refuse_existing(out)
        raise
    sync_folder(out.parent)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `out` once it is complete, and else is gone.

    It is made inside `.OUT.making/`, by one process at a time.

    Raises:
        DataError: `out` exists, or another process makes it.
    """
    refuse_existing(out)
    scratch = out.with_name(f".{out.name}.making")
    with locked(scratch):
        try:
            refuse_existing(out)
            root = scratch / "whole"
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            yield root
            give_name(root, out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
