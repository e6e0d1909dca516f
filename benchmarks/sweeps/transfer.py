"""Learning rates and batch sizes of one model from those of others, by published rules.

Sources:
    step-law  Li et al. 2025 (`benchmarks/laws/step_law.py`).
    ling      Ling team 2025 (arXiv:2507.17702): eta ~ C^-0.1529, batch ~ C^0.3644, C training
              FLOPs. Only the exponents are taken: an anchor gives the rest.
    width     Yang et al. 2022 (muP, arXiv:2203.03466, table 8): with Adam, the rate of hidden
              matrices goes as 1 / width. moescale's optimizer has one rate for all parameters, so
              that of embeddings, norms and LM head falls too, and initial weights are as ever:
              this is *not* all of muP.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from benchmarks.laws.step_law import step_law_batch_tokens, step_law_learning_rate
from data.frozen_model import FrozenModel

LearningRateRule = Literal["step-law", "ling", "width"]
BatchRule = Literal["step-law", "ling"]


class Anchor(FrozenModel):
    """A run whose learning rate and batch are known to be good."""

    learning_rate: float | None = Field(default=None, gt=0, le=1e3)
    """Its peak learning rate."""
    batch_tokens: float | None = Field(default=None, ge=1, le=1e12)
    """Tokens of its optimizer step."""
    flops: float | None = Field(default=None, ge=1, le=1e40)
    """Its training FLOPs, for `ling`."""
    hidden_size: float | None = Field(default=None, ge=1, le=1e9)
    """Its width, for `width`."""


class Transfer(FrozenModel):
    """The `[transfer]` table: rules in place of the base's learning rate and batch."""

    learning_rate: LearningRateRule | None = None
    """Rule of `train.learning_rate`; `train.min_learning_rate` keeps its share of it."""
    batch: BatchRule | None = None
    """Rule of `train.global_batch_size`, in whole micro-batches."""
    anchor: Anchor = Anchor()

    @model_validator(mode="after")
    def _check(self) -> Self:
        rules = {"learning_rate": self.learning_rate, "batch": self.batch}
        needs = {
            "learning_rate": {"ling": ("learning_rate", "flops"),
                              "width": ("learning_rate", "hidden_size")},
            "batch": {"ling": ("batch_tokens", "flops")},
        }  # fmt: skip
        for key, rule in rules.items():
            for need in needs[key].get(rule or "", ()):
                if getattr(self.anchor, need) is None:
                    raise ValueError(f'{key} = "{rule}" needs anchor.{need}')
        return self

    def learning_rate_of(
        self, *, non_embedding_parameters: float, tokens: float, flops: float, hidden_size: float
    ) -> float | None:
        """Return a run's peak learning rate; None where no rule is chosen."""
        anchor = self.anchor
        if self.learning_rate == "step-law":
            return step_law_learning_rate(non_embedding_parameters, tokens)
        if self.learning_rate == "ling":
            return (anchor.learning_rate or 0) * math.pow(flops / (anchor.flops or 1), -0.1529)
        if self.learning_rate == "width":
            return (anchor.learning_rate or 0) * (anchor.hidden_size or 1) / hidden_size
        return None

    def batch_tokens_of(self, *, tokens: float, flops: float) -> float | None:
        """Return the tokens of a run's optimizer step; None where no rule is chosen."""
        anchor = self.anchor
        if self.batch == "step-law":
            return step_law_batch_tokens(tokens)
        if self.batch == "ling":
            return (anchor.batch_tokens or 0) * math.pow(flops / (anchor.flops or 1), 0.3644)
        return None
