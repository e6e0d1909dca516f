"""The error that tells a user what is wrong with a file, store or data setting."""


class DataError(ValueError):
    """Wrong, missing or damaged data; the message names the file and the remedy."""

    exit_code = 2


class WorkerError(RuntimeError):
    """A worker process died; what is done is kept, and the same command continues."""

    exit_code = 1


class DiskError(RuntimeError):
    """Reading or writing failed where nothing is wrong with the input: a full disk, most often."""

    exit_code = 1


class StoppedError(RuntimeError):
    """A signal stopped the work; the message says whether the same command continues."""

    exit_code = 75
