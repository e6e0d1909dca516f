"""Errors and outcomes that the command line turns into one line and an exit code."""

from typing import Self


class ConfigError(ValueError):
    """A wrong experiment, model or run directory; the message says how to mend it."""

    exit_code = 2


class StoppedError(RuntimeError):
    """Training was stopped by a signal after its checkpoint was written; resume it."""

    exit_code = 75

    @classmethod
    def after(cls, step: int) -> Self:
        """Return how a run ended whose newest checkpoint is that of `step`."""
        return cls(
            f"stopped by a signal after step {step}; the checkpoint is written: continue with"
            " --resume"
        )


class StorageError(RuntimeError):
    """The disk refused what a run must keep; everything complete is still there."""

    exit_code = 1


class ExecutionError(RuntimeError):
    """The built model is not what was asked for."""

    exit_code = 1


class GuardError(RuntimeError):
    """A step's loss or gradient was refused; the run ended with a dump of the step."""

    exit_code = 1


class RankError(RuntimeError):
    """A rank of this run failed or was killed; the run can be resumed."""

    exit_code = 1
