"""This room's errors, by exit code (data/errors.py)."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from data.errors import FailedError, InputError, StoppedError


class ConfigError(InputError):
    """A wrong experiment, model or run directory; the message says how to mend it."""


class TrainingStoppedError(StoppedError):
    """Training was stopped by a signal after its checkpoint was written; resume it."""

    @classmethod
    def after(cls, step: int) -> Self:
        """Return how a run ended whose newest checkpoint is that of `step`."""
        return cls(
            f"stopped by a signal after step {step}; the checkpoint is written: continue with"
            " --resume"
        )


class StorageError(FailedError):
    """The disk refused what a run must keep; everything complete is still there."""


IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL}
"""Faults of what stands at a path; EINVAL is `regular_file`'s, of a FIFO for example."""


def remedy_of(error: OSError) -> str:
    """Return what mends a fault of storage."""
    is_in_the_way = error.filename is not None and error.errno in IN_THE_WAY
    return "move away what stands there" if is_in_the_way else "make room or repair it"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into a StorageError that names the remedy."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or path}: {error.strerror or error}: {remedy_of(error)}, then start"
            " again"
        ) from None


class ExecutionError(FailedError):
    """The built model is not what was asked for."""


class GuardError(FailedError):
    """A step's loss or gradient was refused; the run ended with a dump of the step."""


class RankError(FailedError):
    """A rank of this run failed or was killed; the run can be resumed."""
