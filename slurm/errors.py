"""What can go wrong between us and the cluster, in one line; by exit code (data/errors.py)."""

from data.errors import FailedError, InputError


class SlurmError(FailedError):
    """The cluster does not answer, or failed; nothing is wrong with what the user wrote."""


class UnrecordedError(FailedError):
    """A job is queued, but the disk did not take its id."""


class JobError(InputError):
    """The job, profile or name is wrong, or the cluster refuses it; the message says why."""
