"""How many tokens a model needs to reach a loss, by a law."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.decisions.candidates import Candidate
from benchmarks.laws.fitted_law import FittedLaw

TOKENS = np.geomspace(1.0, 1e24, 2401)
"""Where losses are looked at; between two of them ln D is taken to be linear in the loss."""


def tokens_for_loss(
    one: Candidate, fitted: FittedLaw, loss: float, values: Mapping[str, Any] | None = None
) -> float | None:
    """Return the fewest training tokens that reach a loss; None where none up to 1e24 do.

    Args:
        one: The model.
        fitted: The law.
        loss: Nats per token.
        values: Other coefficients of the law, as of a resample.
    """
    losses = one.losses(fitted, fitted.values if values is None else values, TOKENS)
    reached = np.flatnonzero(losses <= loss)
    if not reached.size:
        return None
    index = int(reached[0])
    if index == 0 or not np.isfinite(losses[index - 1]):
        return float(TOKENS[index])
    above, below = losses[index - 1], losses[index]
    share = (above - loss) / (above - below)
    return float(np.exp(np.interp(share, [0, 1], np.log(TOKENS[index - 1 : index + 1]))))
