"""Files that a manifest, an index or a recipe describes, which anybody may have written.

A name in a manifest is that of a regular file inside the manifest's folder. Nothing else is
opened: no link that leaves the folder, no FIFO, which waits for ever, no device, which never ends.
"""

import os
import stat
from pathlib import Path, PurePosixPath

from data.errors import DataError

MANIFEST_BYTES = 256 << 20
"""Largest manifest read; one of a store of 100,000 shards has 20 MB."""


def is_plain_name(name: str) -> bool:
    """Whether a name stays inside the folder it is joined to, links aside."""
    path = PurePosixPath(name)
    parts = name.split("/")
    return (
        bool(name)
        and not path.is_absolute()
        and "\0" not in name
        and not {"", ".", ".."} & {*parts}
    )


def file_inside(folder: Path, name: str) -> Path:
    """Return the regular file of that name inside a folder.

    Raises:
        DataError: The name leaves the folder, by itself or through a link, or is no regular file.
        OSError: It is missing or cannot be reached.
    """
    path = folder / name
    if not is_plain_name(name):
        raise DataError(f"{folder}: names {name!r}, which is not inside it: not opened")
    status = path.lstat()
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path}: a link that leaves {folder}: put the file itself there")
    if stat.S_ISLNK(status.st_mode):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file: not opened")
    return path


def read_regular(path: Path, max_bytes: int = MANIFEST_BYTES) -> bytes:
    """Read a small file whole, if it is a regular file.

    Raises:
        DataError: It is a FIFO, a device or a folder, or larger than `max_bytes`.
        OSError: It cannot be read.
    """
    # Without waiting: a FIFO that nobody writes to would block in open().
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file: not read")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DataError(f"{path}: larger than {max_bytes:,} bytes: not what it should be")
    return content
