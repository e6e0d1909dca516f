"""Exclusive access to a file or directory, among all processes that ask for it."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import DataError


class LocksUnsupportedError(OSError):
    """The file system has no locks."""


class FileLock:
    """An exclusive lock (flock) on a lock file, held until released or until the process ends."""

    def __init__(self, path: Path, *, wait: bool = True) -> None:
        """Acquire the lock; creates the file where it is missing.

        Args:
            path: The lock file.
            wait: Whether to wait while another process holds the lock.

        Raises:
            BlockingIOError: Another process holds it and `wait` is false, or removed it meanwhile.
            LocksUnsupportedError: The file system cannot lock it.
            OSError: The file cannot be opened, or is a symbolic link: it would create another.
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if not os.fstat(self._descriptor).st_nlink:
                # Its previous holder removed the file after it was opened here.
                raise BlockingIOError(errno.EWOULDBLOCK, "removed meanwhile", str(path))
        except BlockingIOError:
            self.release()
            raise
        except OSError as error:
            self.release()
            raise LocksUnsupportedError(error.errno, error.strerror, str(path)) from None

    def release(self) -> None:
        """Let other processes acquire the lock."""
        os.close(self._descriptor)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Create a directory, or use the one that exists, with exclusive access.

    Raises:
        DataError: Another process holds it, or its file system has no locks.
    """
    path.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path / ".lock", wait=False)
    except BlockingIOError:
        raise DataError(f"{path}: another process is building there: let it finish") from None
    except LocksUnsupportedError as error:
        raise DataError(
            f"{path}: cannot be locked ({error.strerror}): choose another file system"
        ) from None
    with lock:
        yield
