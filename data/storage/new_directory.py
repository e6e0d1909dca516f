"""Directories that have their name only when they are complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.errors import DataError
from data.storage.atomic import fsync
from data.storage.lock import locked_directory


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Yield an empty directory that is renamed to `out` once complete, and removed on failure.

    It is made inside `.OUT.making/`, by one process at a time.

    Raises:
        DataError: `out` exists, or another process is making it.
    """
    refuse_existing(out)
    scratch = out.with_name(f".{out.name}.making")
    with locked_directory(scratch):
        try:
            refuse_existing(out)
            partial = scratch / "whole"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            publish_directory(partial, out)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a directory as far as the storage lets it; of a link, never what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def publish_directory(partial: Path, out: Path) -> None:
    """Rename a complete directory to its final name, durably.

    Raises:
        DataError: `out` has come to exist meanwhile.
    """
    fsync(partial)
    try:
        partial.rename(out)
    except OSError:
        refuse_existing(out)
        raise
    fsync(out.parent)


def refuse_existing(out: Path) -> None:
    """Check that an output does not exist yet.

    Raises:
        DataError: It exists.
    """
    if out.exists():
        raise DataError(f"{out}: exists already: remove it or choose another name")
