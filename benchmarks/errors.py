"""The error that tells a user what is wrong with a run, a meter or a benchmark's input."""


class BenchmarkError(ValueError):
    """A wrong, missing or damaged run directory, table or setting; names it and the remedy."""

    exit_code = 2
