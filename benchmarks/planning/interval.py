"""How far a step's seconds may be off: the 80% interval of a prediction."""

from dataclasses import dataclass
from typing import Any

from parallel.layout.model_shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class ErrorBand:
    """Measured over predicted seconds of a group of published layouts."""

    group: str
    low: float
    """10th percentile, at most 1."""
    high: float
    """90th percentile, at least 1."""
    layouts: int
    """Published layouts behind it."""

    def around(self, seconds: float) -> tuple[float, float]:
        """Return the 80% interval of predicted seconds."""
        return seconds * self.low, seconds * self.high

    def as_json(self) -> dict[str, Any]:
        """Return it beside its source."""
        return {
            "group": self.group,
            "interval": [self.low, self.high],
            "layouts": self.layouts,
            "source": "published steps that no constant was fitted to (docs/guides/plan.md)",
        }


DENSE = ErrorBand(group="dense", low=1.0, high=1.26, layouts=12)
SPARSE = ErrorBand(group="sparse", low=0.84, high=4.9, layouts=38)


def error_band(shape: ModelShape) -> ErrorBand:
    """Return the band of the group that a model belongs to."""
    return SPARSE if any(shape.sparse_layers) else DENSE
