"""How far a step's seconds may be off: the 80% interval where all flags are known."""

from dataclasses import dataclass
from math import exp
from typing import Any

from parallel.layout.model_shape import ModelShape
from parallel.planner.step.parameters import step_parameters
from parallel.planner.validation.uncertainty import WITHIN_80


@dataclass(frozen=True, kw_only=True)
class ErrorBand:
    """The spread of measured over predicted seconds in a group of published layouts."""

    group: str
    spread: float
    """Standard deviation of ln(measured / predicted)."""

    @property
    def low(self) -> float:
        """Measured over predicted seconds that 10% undercut."""
        return exp(-WITHIN_80 * self.spread)

    @property
    def high(self) -> float:
        """Measured over predicted seconds that 10% exceed."""
        return exp(WITHIN_80 * self.spread)

    def around(self, seconds: float) -> tuple[float, float]:
        """Return the 80% interval of predicted seconds."""
        return seconds * self.low, seconds * self.high

    def as_json(self) -> dict[str, Any]:
        """Return it beside its source."""
        return {
            "group": self.group,
            "spread": self.spread,
            "interval": [self.low, self.high],
            "source": "published steps whose flags are known (parallel/planner/step/step.toml)",
        }


def error_band(shape: ModelShape) -> ErrorBand:
    """Return the band of the group that a model belongs to."""
    spread = step_parameters().spread
    if any(shape.sparse_layers):
        return ErrorBand(group="sparse", spread=spread.sparse)
    return ErrorBand(group="dense", spread=spread.dense)
