"""What people see while a model trains: one line that moves, on standard error."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """Shows steps, loss, speed and time left."""

    def __init__(self, title: str = "train") -> None:
        self.title = title
        self.console = Console(stderr=True)
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self.task: Any = None
        self.held_out = ""

    def begin(self, step: int, steps: int) -> None:
        """Show the bar at `step` of `steps`."""
        self.bar.start()
        self.task = self.bar.add_task(self.title, total=steps, completed=step, note="")

    def row(self, row: Mapping[str, Any]) -> None:
        """Move to a metrics row's step."""
        note = f"loss {row['loss']:.3f}  {row['tokens_per_s']:,.0f} tokens/s{self.held_out}"
        self.bar.update(self.task, completed=row["step"], note=note)

    def evaluated(self, step: int, loss: float | None) -> None:
        """Show the newest held-out loss beside the training loss."""
        if loss is not None:
            self.held_out = f"  held-out {loss:.3f}"

    def end(self) -> None:
        """Leave the last line standing."""
        self.bar.stop()


@contextmanager
def data_progress() -> Iterator[Any]:
    """Show a store's building; gives the callable that `build_store` reports to."""
    with Progress(console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def report(progress: Any) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=progress.total)
            bar.update(tasks[progress.stage], completed=progress.done, total=progress.total)

        yield report
