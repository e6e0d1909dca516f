"""How far a step's seconds may be off: the 80% interval where all flags are known."""

from dataclasses import dataclass, replace
from math import exp, sqrt
from typing import TYPE_CHECKING, Any

from parallel.hardware.card import Card
from parallel.layout.model_shape import ModelShape
from parallel.planner.step.parameters import step_parameters
from parallel.planner.validation.uncertainty import WITHIN_80

if TYPE_CHECKING:
    from benchmarks.planning.calibrate import Calibrated

TABLES_SPREAD = 0.09
"""Of the cards' kernel tables: a median error of 6% (docs/explanation/kernel_times.md)."""


@dataclass(frozen=True, kw_only=True)
class ErrorBand:
    """The spread of measured over predicted seconds in a group of published layouts."""

    group: str
    spread: float
    """Standard deviation of ln(measured / predicted)."""
    card_is_measured: bool = True
    """Whether steps of the card itself were among them."""
    calibration: str | None = None
    """What a calibration did to it."""

    @property
    def low(self) -> float:
        """Measured over predicted seconds that 10% undercut."""
        return exp(-WITHIN_80 * self.spread)

    @property
    def high(self) -> float:
        """Measured over predicted seconds that 10% exceed."""
        return exp(WITHIN_80 * self.spread)

    @property
    def source(self) -> str:
        """Whose errors these are."""
        told = "published steps whose flags are known (parallel/planner/step/step.toml)"
        return told if self.card_is_measured else f"{told}; wider, as none is of this card"

    def around(self, seconds: float) -> tuple[float, float]:
        """Return the 80% interval of predicted seconds."""
        return seconds * self.low, seconds * self.high

    def as_json(self) -> dict[str, Any]:
        """Return it beside its source."""
        return {
            "group": self.group,
            "spread": self.spread,
            "interval": [self.low, self.high],
            "source": self.source,
            "calibration": self.calibration,
        }


def error_band(shape: ModelShape, card: Card, calibrated: "Calibrated | None" = None) -> ErrorBand:
    """Return the band of the group that a model belongs to, on a card.

    A calibration never narrows it (docs/explanation/planner_accuracy.md). It widens by what the
    records scatter around the calibrated card more than the tables did around theirs.
    """
    parameters = step_parameters()
    group = "sparse" if any(shape.sparse_layers) else "dense"
    of_group = parameters.spread.sparse if group == "sparse" else parameters.spread.dense
    spread = parameters.spread_on(of_group, card)
    band = ErrorBand(group=group, spread=spread, card_is_measured=spread == of_group)
    if calibrated is None:
        return band
    scatter = calibrated.found.spread
    if scatter is None:
        kept = "as without records: too few of one kind to say how they scatter"
        return replace(band, calibration=kept)
    excess = scatter**2 - TABLES_SPREAD**2
    if excess <= 0:
        kept = "not narrowed: no steps are published that were predicted from records alone"
        return replace(band, calibration=kept)
    return replace(
        band,
        spread=sqrt(spread**2 + excess),
        calibration=f"widened: records scatter by {scatter:.0%} around the calibrated card",
    )
