"""How far a step's seconds may be off: the 80% interval where all flags are known."""

from dataclasses import dataclass
from math import exp
from typing import Any

from parallel.hardware.card import Card
from parallel.layout.model_shape import ModelShape
from parallel.planner.step.parameters import step_parameters
from parallel.planner.validation.uncertainty import WITHIN_80


@dataclass(frozen=True, kw_only=True)
class ErrorBand:
    """The spread of measured over predicted seconds in a group of published layouts."""

    group: str
    spread: float
    """Standard deviation of ln(measured / predicted)."""
    card_is_measured: bool = True
    """Whether steps of the card itself were among them."""

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
        }


def error_band(shape: ModelShape, card: Card) -> ErrorBand:
    """Return the band of the group that a model belongs to, on a card."""
    parameters = step_parameters()
    group = "sparse" if any(shape.sparse_layers) else "dense"
    of_group = parameters.spread.sparse if group == "sparse" else parameters.spread.dense
    spread = parameters.spread_on(of_group, card)
    return ErrorBand(group=group, spread=spread, card_is_measured=spread == of_group)
