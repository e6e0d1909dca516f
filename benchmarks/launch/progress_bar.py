"""What people see while a model trains, on standard error."""

import sys
import time
from collections.abc import Mapping
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

LOG_EVERY_S = 30.0
"""Seconds between lines where no terminal can show a moving one."""


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.3f}"


class TrainingProgress:
    """Shows steps, loss, speed and time left: a moving line, or in a log one line now and then."""

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
        self.steps = 0
        self.held_out = ""
        self.last_line_at = 0.0

    def begin(self, step: int, steps: int) -> None:
        """Show the bar at `step` of `steps`."""
        self.steps = steps
        if self.console.is_terminal:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=steps, completed=step, note="")

    def row(self, row: Mapping[str, Any]) -> None:
        """Move to a metrics row's step."""
        step = row["step"]
        note = f"loss {_shown(row['loss'])}  {row['tokens_per_s']:,.0f} tokens/s{self.held_out}"
        if self.task is not None:
            self.bar.update(self.task, completed=step, note=note)
        elif step == self.steps or time.monotonic() - self.last_line_at > LOG_EVERY_S:
            self.last_line_at = time.monotonic()
            print(f"{self.title} {step}/{self.steps}  {note}", file=sys.stderr, flush=True)

    def evaluated(self, step: int, loss: float | None) -> None:
        """Show the newest held-out loss beside the training loss."""
        if loss is not None:
            self.held_out = f"  held-out {loss:.3f}"

    def end(self) -> None:
        """Leave the last line standing."""
        if self.task is not None:
            self.bar.stop()
