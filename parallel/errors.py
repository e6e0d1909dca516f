"""The error that tells a user which layout or device setting to change."""


class ParallelError(ValueError):
    """A layout, precision or device that cannot be had; the message says what to change."""

    exit_code = 2
