"""Progress of a build: what is reported, and how it is shown on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LINE_INTERVAL_S = 10.0
WINDOW_S = 60.0


@dataclass(frozen=True)
class BuildProgress:
    """Progress of a build in one of its stages."""

    stage: str
    done: int = 0
    """Bytes of input while cleaning and tokenizing, documents while writing."""
    total: int = 0
    """The same at the end; 0 where unknown."""
    documents: int = 0
    """Documents read so far."""
    tokens: int = 0
    """Tokens made so far."""


ProgressCallback = Callable[[BuildProgress], None]


class ProgressRate:
    """Rates over about the last minute, from the reports of one stage."""

    def __init__(self, first: BuildProgress, now_s: float) -> None:
        """Start from the first report: an earlier process may have done part of the work."""
        self._from = self._next = (now_s, first)

    def note(self, progress: BuildProgress, now_s: float) -> str:
        """Return tokens per second and time left as text; empty while unknown."""
        if now_s - self._next[0] >= WINDOW_S:
            self._from, self._next = self._next, (now_s, progress)
        begin_s, begin = self._from
        done, elapsed_s = progress.done - begin.done, now_s - begin_s
        if done <= 0 or elapsed_s <= 0:
            return ""
        texts = []
        if progress.tokens > begin.tokens:
            texts.append(f"{(progress.tokens - begin.tokens) / elapsed_s:,.0f} tokens/s")
        if progress.total:
            left_s = (progress.total - progress.done) * elapsed_s / done
            texts.append(f"{approximate_duration(left_s)} left")
        return ", ".join(texts)


def approximate_duration(seconds: float) -> str:
    """Return a rough duration: `40 s`, `12 min`, `3.5 h`.

    `parallel.measurement.units` writes measured durations, to three digits; data may not import it.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def show_progress() -> Iterator[ProgressCallback]:
    """Show a build on standard error: a bar on a terminal, else a line every ten seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as report:
            yield report
    else:
        yield _lines(console)


@contextmanager
def _bar(console: Any) -> Iterator[ProgressCallback]:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    note = TextColumn("{task.fields[note]}")
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), note)
    with Bar(*columns, console=console) as bar:
        stages: dict[str, tuple[Any, ProgressRate]] = {}

        def report(progress: BuildProgress) -> None:
            now_s = time.monotonic()
            if progress.stage not in stages:
                task = bar.add_task(progress.stage, total=None, note="")
                stages[progress.stage] = (task, ProgressRate(progress, now_s))
            task, rate = stages[progress.stage]
            total = progress.total or None
            bar.update(task, completed=progress.done, total=total, note=rate.note(progress, now_s))

        yield report


def _lines(console: Any) -> ProgressCallback:
    stage, rate, shown_s = "", None, 0.0

    def report(progress: BuildProgress) -> None:
        nonlocal stage, rate, shown_s
        now_s = time.monotonic()
        if progress.stage != stage or rate is None:
            stage, rate, shown_s = progress.stage, ProgressRate(progress, now_s), now_s
            console.print(f"{stage} ...", highlight=False)
        elif now_s - shown_s >= LINE_INTERVAL_S:
            shown_s = now_s
            fraction = f"{progress.done / progress.total:.0%}" if progress.total else ""
            text = ", ".join(filter(None, (fraction, rate.note(progress, now_s))))
            console.print(f"{stage}: {text}", highlight=False)

    return report
