"""Errors and outcomes that the command line turns into one line and an exit code."""


class ConfigError(ValueError):
    """A wrong experiment, model or run directory; the message says how to mend it."""

    exit_code = 2


class StoppedError(RuntimeError):
    """Training was stopped by a signal after its checkpoint was written; resume it."""

    exit_code = 75
