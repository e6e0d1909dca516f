"""Directories that appear under their name only when complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import DataError
from data.storage.atomic import whole_folder
from moe.errors import ConfigError, StorageError


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `out` once it is complete, and else is gone.

    Raises:
        ConfigError: `out` exists, or another process makes it.
        StorageError: The disk is full or fails.
    """
    try:
        with whole_folder(out) as partial:
            yield partial
    except DataError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise StorageError(
            f"{error.filename or out}: {error.strerror or error}: make room or repair it, then"
            " start again"
        ) from None
