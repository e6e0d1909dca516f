"""Files that were written by somebody else: only regular ones are opened, and only so much is read.

A FIFO or a device under a file's name would make its reader wait, or read, without end.
"""

import errno
import io
import os
import stat
from pathlib import Path

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
    # Without O_NONBLOCK, opening a FIFO waits for a writer; on regular files it has no effect.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except ValueError:  # a NUL, or what no file name can hold
        raise OSError(errno.EINVAL, "not a file name", repr(str(path))) from None
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_link:
            raise _unlike(path, "a symbolic link: put the file itself in its place") from None
        if error.errno == errno.ENXIO:  # a socket
            raise _unlike(path, "not a regular file") from None
        raise
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unlike(path, "not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, max_bytes: int, *, follow_link: bool = True) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises:
        OSError: As `open_regular`, or the file is longer.
    """
    with open_regular(path, follow_link=follow_link) as file:
        # Asked first: a sparse file may be longer than memory.
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > max_bytes else file.read(max_bytes + 1)
    if max(size, len(content)) > max_bytes:
        limit = f"{max_bytes // MIB} MiB" if max_bytes >= MIB else f"{max_bytes} bytes"
        raise OSError(errno.EFBIG, f"longer than {limit}", str(path))
    return content


def _unlike(path: Path, what: str) -> OSError:
    return OSError(errno.EINVAL, what, str(path))
