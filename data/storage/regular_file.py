"""Files that were written by somebody else: only regular ones are opened, and only so much is read.

A FIFO or a device under a file's name would make its reader wait, or read, without end; who writes
through a link in somebody else's folder writes a file elsewhere.
"""

import errno
import io
import os
import shutil
import stat
from pathlib import Path

from data.errors import DataError

MIB = 1 << 20


def open_regular(path: Path, *, follow_link: bool = True) -> io.BufferedReader:
    """Open a regular file for reading; what it is, is asked of the opened file itself.

    Args:
        path: The file.
        follow_link: Whether `path` may be a symbolic link. Not where a downloaded directory or an
            index in it names the file: the link may lead anywhere.

    Raises:
        OSError: It is missing, cannot be read, is no regular file, or a link that is not followed.
    """
    return os.fdopen(_descriptor(path, os.O_RDONLY, follow_link=follow_link), "rb")


def append_regular(path: Path) -> io.BufferedWriter:
    """Open a regular file to write at its end; creates it where it is missing, follows no link.

    Raises:
        OSError: It cannot be written, is no regular file, or a link.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.fdopen(_descriptor(path, flags, follow_link=False), "ab")


def read_regular(path: Path, max_bytes: int, *, follow_link: bool = True) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises:
        OSError: As `open_regular`, or the file is longer.
    """
    with open_regular(path, follow_link=follow_link) as file:
        # Asked first: a sparse file may be longer than memory. Then, in blocks: `read(n)` takes
        # memory for n bytes, and the file may grow meanwhile.
        length, blocks = os.fstat(file.fileno()).st_size, list[bytes]()
        if length <= max_bytes:
            length = 0
            while length <= max_bytes and (block := file.read(MIB)):
                length += len(block)
                blocks.append(block)
    if length > max_bytes:
        limit = f"{max_bytes // MIB} MiB" if max_bytes >= MIB else f"{max_bytes} bytes"
        raise OSError(errno.EFBIG, f"longer than {limit}", str(path))
    return b"".join(blocks)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a regular file, or a folder of such; a link would bring in files from elsewhere.

    Raises:
        DataError: A part of `source` is a link or no regular file, or cannot be read.
        OSError: `target` exists or cannot be written.
    """
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        for inner in source.iterdir():
            copy_tree(inner, target / inner.name)
        return
    try:
        file = open_regular(source, follow_link=False)
    except OSError as error:
        raise DataError(f"{source}: {error.strerror or error}") from None
    with file, target.open("xb") as copy:
        shutil.copyfileobj(file, copy)


def _descriptor(path: Path, flags: int, *, follow_link: bool) -> int:
    # Without O_NONBLOCK, opening a FIFO waits for its other end; no effect on regular files.
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, 0o666)
    except ValueError:  # a NUL, or what no file name can hold
        raise OSError(errno.EINVAL, "not a file name", repr(str(path))) from None
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_link:
            raise _unlike(path, "a symbolic link: put the file itself in its place") from None
        if error.errno == errno.ENXIO:  # a socket, or a FIFO that nobody reads
            raise _unlike(path, "not a regular file") from None
        raise
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unlike(path, "not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlike(path: Path, what: str) -> OSError:
    return OSError(errno.EINVAL, what, str(path))
