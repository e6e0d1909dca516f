"""How many tokens a model needs to reach a loss, by a law: `moe plan --target-loss`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.decisions.candidates import knows_experts
from benchmarks.decisions.model_columns import losses, model_columns, trained
from benchmarks.errors import BenchmarkError
from benchmarks.laws.fitted_law import FittedLaw, find_fitted
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.law import Columns
from benchmarks.laws.predict import beyond
from benchmarks.planning.job import PlanJob
from moe.cost.ledger import ledger
from parallel.measurement.number_text import readable

TOKENS = np.geomspace(1.0, 1e24, 2401)
"""Where losses are looked at; between two of them ln D is taken to be linear in the loss."""


def tokens_for_loss(
    fitted: FittedLaw, loss: float, columns: Columns, values: Mapping[str, Any] | None = None
) -> float | None:
    """Return the fewest training tokens that reach a loss; None where none up to 1e24 do.

    Args:
        fitted: The law.
        loss: Nats per token.
        columns: The model's.
        values: Other coefficients of the law, as of a resample.
    """
    found = losses(fitted, columns, fitted.values if values is None else values, TOKENS)
    reached = np.flatnonzero(found <= loss)
    if not reached.size:
        return None
    index = int(reached[0])
    if index == 0 or not np.isfinite(found[index - 1]):
        return float(TOKENS[index])
    above, below = found[index - 1], found[index]
    share = (above - loss) / (above - below)
    return float(np.exp(np.interp(share, [0, 1], np.log(TOKENS[index - 1 : index + 1]))))


@dataclass(frozen=True, kw_only=True)
class LossTarget:
    """The tokens that a loss needs."""

    loss: float
    asked: str
    """The law's name or file, as it was asked for."""
    law: str
    """Its family."""
    origin: str
    tokens: float
    interval: tuple[float, float | None] | None
    """By the law's resamples; None: of published coefficients. Its end is None where more than
    the resamples outside of it never reach the loss."""
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "loss": self.loss,
            "asked": self.asked,
            "law": self.law,
            "origin": self.origin,
            "tokens": self.tokens,
            "interval": None if self.interval is None else list(self.interval),
            "interval_level": LEVEL,
            "warnings": list(self.warnings),
            "kind": "modelled",
        }

    @property
    def text(self) -> str:
        """What it says, in one line."""
        line = (
            f"loss {self.loss:g} by {self.asked} ({self.origin}): {readable(self.tokens, 'tokens')}"
        )
        if self.interval is None:
            return f"{line}, without an interval"
        low, high = self.interval
        end = "open" if high is None else readable(high, "tokens")
        return f"{line}, 95% interval {readable(low, 'tokens')} to {end}"


def loss_target(asked: str, loss: float, job: PlanJob) -> LossTarget:
    """Return the tokens that a job's model needs to reach a loss, by the law that is asked for.

    Raises:
        BenchmarkError: The law does not tell tokens, or says that the loss is never reached.
    """
    fitted = find_fitted(asked)
    law = fitted.law
    if not 0 < loss < np.inf:
        raise BenchmarkError(f"--target-loss {loss:g}: give nats per token above 0")
    if law.target != "loss" or "tokens" not in law.columns:
        raise BenchmarkError(
            f"--law {law.name}: it does not tell tokens from a loss: it gives {law.target} of"
            f" {', '.join(law.columns)}"
        )
    costs = ledger(job.model, job.batch.seq_len)
    columns = model_columns(fitted, job.name, job.model, costs, job.precision.matmul_bits)
    tokens = tokens_for_loss(fitted, loss, columns)
    if tokens is None:
        floor = float(losses(fitted, columns, fitted.values, TOKENS).min())
        raise BenchmarkError(
            f"--target-loss {loss:g}: law {law.name!r} says that {job.name} stays above"
            f" {floor:.4f} however long it trains: take a larger model or a higher loss"
        )
    sizes = {name: float(column[0]) for name, column in trained(columns, tokens).items()}
    outside = [f"{name} is beyond the fitted points" for name in beyond(fitted, sizes)]
    if job.model.moe is not None and not knows_experts(law):
        outside.append(
            f"law {law.name!r} is of dense models: it takes {job.name} for one of its"
            f" {' and '.join(name for name in law.columns if name != 'tokens')}, and knows nothing"
            " of experts"
        )
    if fitted.resamples is None:
        outside.append("the law is of other people's data and tokenizer: it predicts their loss")
    return LossTarget(
        loss=loss,
        asked=asked,
        law=law.name,
        origin=fitted.origin,
        tokens=tokens,
        interval=_interval(fitted, loss, columns),
        warnings=tuple(outside),
    )


def _interval(
    fitted: FittedLaw, loss: float, columns: Columns
) -> tuple[float, float | None] | None:
    if fitted.resamples is None or len(fitted.resamples) < 2:
        return None
    names = fitted.law.coefficients
    found = [
        tokens_for_loss(fitted, loss, columns, dict(zip(names, row, strict=True)))
        for row in fitted.resamples
    ]
    ordered = np.sort([np.inf if one is None else one for one in found])
    ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    low, high = np.percentile(ordered, ends, method="nearest")
    return float(low), float(high) if np.isfinite(high) else None
