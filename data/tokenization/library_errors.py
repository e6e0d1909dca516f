"""Errors of the tokenizers library as one line, its panics too.

The library is written in Rust. What its authors did not expect "panics" there: the message, and
most often a long backtrace, goes straight to standard error, and Python gets an exception that no
`except Exception` meets.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import DataError

MAX_CHARACTERS = 200


def is_of_the_library(error: BaseException) -> bool:
    """Return whether an error may be the library's: it raises bare Exception, or panics."""
    return isinstance(error, Exception) or _is_panic(error)


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"  # its module cannot be imported


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Raise DataError, `what` and the library's message in one line, for what goes wrong inside.

    Raises:
        DataError: The library raised or panicked.
    """
    try:
        with _stderr_of_panics_dropped():
            yield
    except BaseException as error:
        if not is_of_the_library(error):
            raise
        message = " ".join(str(error).split())[:MAX_CHARACTERS]
        raise DataError(f"{what}: {message}") from None


@contextmanager
def _stderr_of_panics_dropped() -> Iterator[None]:
    """Keep back what is written to standard error; it is lost if that ends in a panic."""
    try:
        saved = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        panicked = False
        try:
            yield
        except BaseException as error:
            panicked = _is_panic(error)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            kept.seek(0)
            if not panicked:
                os.write(2, kept.read())
