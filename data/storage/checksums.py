"""SHA-256 of files."""

import hashlib
from pathlib import Path
from typing import BinaryIO

from data.storage.regular_file import open_regular


def file_sha256(path: Path, *, follow_link: bool = True) -> str:
    """Return the SHA-256 of a regular file's bytes, in hexadecimal; as `open_regular` opens it."""
    with open_regular(path, follow_link=follow_link) as file:
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
        """Flush the underlying file."""
        self._file.flush()
