"""Results of an evaluation: loss, its standard error, perplexity."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.store.manifest import SplitName
from moe.runs.json_lines import finite


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Mean loss over sequences of one source, or of all."""

    source: str | None
    """The source's name; None for all together."""
    sequences: int
    tokens: int
    """Predicted tokens."""
    loss: float
    """Mean negative log-likelihood, nats a token."""
    standard_error: float | None
    """Of the loss, from the spread between sequences, nats a token; None for fewer than two."""

    @property
    def perplexity(self) -> float:
        """Exponential of the loss; infinite where no float holds it."""
        try:
            return math.exp(self.loss)
        except OverflowError:
            return math.inf

    def as_json(self) -> dict[str, Any]:
        """Return JSON values; null for what is no number, as with weights that are none."""
        error = self.standard_error
        return {
            "source": self.source,
            "sequences": self.sequences,
            "tokens": self.tokens,
            "loss": finite(self.loss),
            "standard_error": None if error is None else finite(error),
            "perplexity": finite(self.perplexity),
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model's loss on a split."""

    split: SplitName
    total: Loss
    sources: tuple[Loss, ...]


def loss_of(source: str | None, rows: NDArray[np.float64]) -> Loss:
    """Sum up sequences' losses and tokens, [N, 2].

    The standard error is that of a ratio of means (Cochran, Sampling Techniques, eq. 2.39).
    """
    sums, tokens = rows.T
    loss = float(sums.sum() / tokens.sum())
    error = None
    if len(rows) > 1:
        spread = ((sums - loss * tokens) ** 2).sum() * len(rows) / (len(rows) - 1)
        error = math.sqrt(spread) / float(tokens.sum())
    return Loss(
        source=source,
        sequences=len(rows),
        tokens=int(tokens.sum()),
        loss=loss,
        standard_error=error,
    )
