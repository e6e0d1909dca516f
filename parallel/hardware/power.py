"""What a card and its node draw: the `[power]` section of a card's file.

Watts of boards are those that NVML reports for one card; of nodes those behind the power supplies
(DC), unless a name says AC.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from parallel.frozen_model import FrozenModel

Phase = Literal["matrix_product", "attention", "memory_bound", "communication", "waiting"]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class LimitShare(FrozenModel):
    """Board power in one phase over the board's limit, with its 80% interval."""

    low: Share
    typical: Share
    high: Share

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.typical <= self.high:
            raise ValueError(f"low {self.low}, typical {self.typical}, high {self.high}: rising")
        return self


class Power(FrozenModel):
    """What one kind of card and its node draw."""

    limit_watts: Positive | None = None
    """Power limit of a board, W; absent: unknown."""
    idle_watts: Positive | None = None
    """Board without a process, W; absent: unknown."""
    phases: dict[Phase, LimitShare] | None = None
    """Share of the limit by what the card does; absent: unknown.

    `communication`: collectives that nothing hides; `waiting`: nothing runs (pipeline bubble,
    host too slow).
    """
    gpus_per_node: Annotated[int, Field(gt=0)]
    host_watts: Positive | None = None
    """Processors, memory, adapters, switches in a node without fans, W; absent: unknown."""
    fan_watts: NotNegative | None = None
    """Fans of an air-cooled node, W; absent: unknown."""
    supply_efficiency: Share | None = None
    """DC over AC of a node's power supplies; absent: unknown."""
    switch_watts: NotNegative | None = None
    """Network switches between nodes, W a GPU; absent: unknown."""
    sources: dict[str, str]
    """Where each number comes from."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = {name for name, value in self if value is not None} - {"sources"}
        missing = known - set(self.sources)
        if missing:
            raise ValueError(f"[power.sources] says nothing of {', '.join(sorted(missing))}")
        phases = set(get_args(Phase))
        if self.phases is not None and set(self.phases) != phases:
            raise ValueError(f"phases: all of {', '.join(sorted(phases))}")
        return self
