"""Files that a manifest, an index or a recipe describes, which anybody may have written.

A name in a manifest is that of a regular file inside the manifest's folder. Nothing else is
opened: no link that leaves the folder, no FIFO, which waits for ever, no device, which never ends.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from data.errors import DataError
from data.storage.link_bounds import LinkBounds
from data.storage.plain_name import is_inner_name
from data.storage.regular_file import read_regular

MANIFEST_BYTES = 256 << 20
"""Largest manifest read; one of a store of 100,000 shards has 20 MB."""


class DescribedFiles:
    """The files that a manifest names, in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)
        self._bounds = LinkBounds(folder)
        self._checked = {""}

    def status(self, name: str) -> os.stat_result:
        """Return the status of the regular file of that name.

        Raises:
            DataError: The name leaves the folder, by itself or through a link, or is of no
                regular file.
            OSError: It is missing or cannot be reached.
        """
        path = f"{self._folder}/{name}"
        if not is_inner_name(name):
            raise DataError(f"{self._folder}: names {name!r}, which is not inside it: not opened")
        parent = os.path.dirname(name)
        if parent not in self._checked:
            self._refuse_outside(f"{self._folder}/{parent}")
            self._checked.add(parent)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            self._refuse_outside(path)
            status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file: not opened")
        return status

    def _refuse_outside(self, path: str) -> None:
        if self._bounds.target_outside(path) is not None:
            raise DataError(f"{path}: a link that leaves {self._folder}: put the file itself there")


def file_inside(folder: Path, name: str) -> Path:
    """Return the regular file of that name inside a folder; raises as `DescribedFiles.status`."""
    DescribedFiles(folder).status(name)
    return folder / name


def refuse_special(path: Path) -> None:
    """Refuse a FIFO, a device or a socket; what is missing is told by who reads it.

    Raises:
        DataError: It is one.
    """
    with suppress(OSError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError(f"{path}: neither a regular file nor a folder: not opened")


def read_text_file(path: Path, max_bytes: int = MANIFEST_BYTES) -> str:
    """Read a small text file whole, if it is a regular file.

    Raises:
        OSError: It cannot be read, is a FIFO, a device or a folder, or larger than `max_bytes`.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_regular(path, max_bytes).decode()
