"""TensorBoard events of a run, in its directory's `events/`."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from moe.runs.files import EVENTS


class TensorBoardLogger:
    """Writes scalars, and expert load as histograms (a `Logger`)."""

    def begin(self, run_dir: Path, record: Mapping[str, Any], step: int) -> None:
        """Open the events; what an earlier start wrote after `step` is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        threading.excepthook = _quieten(threading.excepthook)
        self._writer: Any = SummaryWriter(run_dir / EVENTS, purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def expert_load(self, step: int, layer: int, tokens: Sequence[float]) -> None:
        """Write a layer's load as a histogram."""
        self._writer.add_histogram(f"expert_load/layer_{layer}", torch.tensor(tokens), step)

    def end(self, record: Mapping[str, Any]) -> None:
        """Flush and close."""
        self._writer.close()


def _quieten(hook: Any) -> Any:
    """Keep tensorboard's thread from printing an OSError that the next call raises here anyway."""

    def quiet(failure: threading.ExceptHookArgs) -> None:
        is_writer = type(failure.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(failure.exc_value, OSError)):
            hook(failure)

    return quiet
