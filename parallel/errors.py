"""The error of wrong layout, precision and device settings."""


class ParallelError(ValueError):
    """A layout, precision or device that is not possible; the message says what to change."""

    exit_code = 2
