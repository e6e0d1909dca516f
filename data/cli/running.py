"""What all commands share: progress, signals, and the summary of a store."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from data.errors import DiskError, StoppedError
from data.inspection.summary import summary, summary_text
from data.plain_text import encodable, encodable_values
from data.progress import ProgressCallback, show_progress
from data.store.manifest import Manifest

RESTART = "start it again"
"""How a command continues that does not resume."""


@contextmanager
def running(out: Path, then: str = "the same command continues") -> Iterator[ProgressCallback]:
    """Show progress while a command runs; turn signals and disk errors into errors of one line.

    Args:
        out: What the command writes; the errors name it.
        then: How the command continues after it was stopped.

    Raises:
        StoppedError: SIGINT or SIGTERM arrived.
        DiskError: Reading or writing failed.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        with show_progress() as report:
            yield report
    except KeyboardInterrupt:
        raise StoppedError(f"{out}: stopped: {then}") from None
    except OSError as error:
        raise DiskError(f"{error.filename or out}: {error.strerror or error}") from None
    finally:
        signal.signal(signal.SIGTERM, earlier)


def print_summary(
    store: Path, manifest: Manifest, as_json: bool, *, histograms: bool = False
) -> None:
    """Print what a store holds, as JSON or for people, with or without histograms."""
    values = summary(manifest)
    if as_json:
        print_json(values)
    else:
        print_text(summary_text(store, values, histograms=histograms))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(encodable_values(value)))


def print_text(text: str) -> None:
    """Print text for people, whatever bytes the file names in it are made of."""
    typer.echo(encodable(text))
