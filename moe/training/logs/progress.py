"""How training shows its progress to users, while it runs."""

from collections.abc import Mapping
from typing import Any, Protocol


class TrainProgress(Protocol):
    """Shows users how training proceeds; used on rank 0 only."""

    def begin(self, step: int, steps: int) -> None:
        """Start after `step` of `steps`."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Show a metrics row that was written."""

    def evaluated(self, step: int, loss: float | None) -> None:
        """Show a held-out loss that was measured."""


class NoProgress:
    """Shows nothing."""

    def begin(self, step: int, steps: int) -> None:
        """Do nothing."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def evaluated(self, step: int, loss: float | None) -> None:
        """Do nothing."""
