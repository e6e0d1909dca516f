"""What can go wrong between us and the cluster, told in one line."""


class SlurmError(RuntimeError):
    """The cluster does not answer, or failed; nothing is wrong with what the user wrote."""

    exit_code = 1


class UnrecordedError(RuntimeError):
    """A job is queued, but the disk did not take its id."""

    exit_code = 1


class JobError(ValueError):
    """The job, profile or name is wrong, or the cluster refuses it; the message says why."""

    exit_code = 2
