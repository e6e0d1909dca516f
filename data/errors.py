"""Errors that the command line turns into one line and an exit code.

Three kinds, by exit code; the errors of every room above derive from them. Their messages name
files, and are printable whatever bytes those names are made of.
"""

from data.plain_text import message_text


class InputError(ValueError):
    """What the user gave is wrong; the message says what, and how to mend it."""

    exit_code = 2

    def __str__(self) -> str:
        return message_text(super().__str__())


class FailedError(RuntimeError):
    """The work failed though nothing is wrong with what the user gave."""

    exit_code = 1

    def __str__(self) -> str:
        return message_text(super().__str__())


class StoppedError(RuntimeError):
    """A signal stopped the work; the message says how to continue."""

    exit_code = 75

    def __str__(self) -> str:
        return message_text(super().__str__())


class DataError(InputError):
    """Wrong, missing or damaged data; the message names the file and the remedy."""


class WorkerError(FailedError):
    """A worker process died; finished work is kept, and the same command continues."""


class DiskError(FailedError):
    """Reading or writing failed though the input is right: most often, the disk is full."""
