"""This room's errors, by exit code (data/errors.py)."""

from data.errors import InputError


class BenchmarkError(InputError):
    """A wrong, missing or damaged run directory, table or setting; names it and the remedy."""
