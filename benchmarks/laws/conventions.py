"""What a law's symbols count, as data; and the converters from one way of counting to another.

Two papers' N can differ by a factor of 43 and both be called "model size". A law therefore states
what it counts; `benchmarks/laws/quantities.py` brings points to it, or refuses them.
"""

import math
from dataclasses import dataclass
from enum import StrEnum


class Size(StrEnum):
    """Which parameters N counts."""

    TOTAL = "total parameters"
    ACTIVE = "active parameters (those one token meets)"
    BOTH = "total and active parameters"
    NONE = "no model size"


class Embeddings(StrEnum):
    """Whether N counts the embedding and the unembedding (LM head)."""

    IN = "in"
    OUT = "out"
    NOT_STATED = "not stated"


class Logarithm(StrEnum):
    """Base of the logarithms on which coefficients depend."""

    NONE = "none"
    NATURAL = "e"
    TEN = "10"
    TEN_AND_TWO = "10 for compute, 2 for granularity"


class Granularity(StrEnum):
    """How finely experts are cut."""

    FFN = "d_ff / d_expert"
    HIDDEN = "2 d_model / d_expert"


class Sparsity(StrEnum):
    """Which number says how sparse a model is."""

    EXPERTS = "experts E, one of them active"
    SPARSITY = "(E - K) / E, experts that a token does not meet"
    ACTIVATION_RATIO = "(K + shared) / (E + shared), experts that a token meets"
    SHARED_AND_ACTIVE = "K + shared active experts, of them shared / (K + shared) shared"


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What a law's symbols count."""

    size: Size
    embeddings: Embeddings
    logarithm: Logarithm = Logarithm.NONE
    granularity: Granularity | None = None
    sparsity: Sparsity | None = None
    flops: str
    """What the law's compute counts, or by which convention `moe predict` counts it."""
    loss: str = "nats per token"

    def as_json(self) -> dict[str, str | None]:
        """Return them by name; what does not occur in the law is null."""
        names = ("size", "embeddings", "logarithm", "granularity", "sparsity", "flops", "loss")
        return {name: _text(getattr(self, name)) for name in names}


def _text(value: str | None) -> str | None:
    return None if value is None else str(value)


SIX_N_D = "6 x active parameters x tokens"


def krajewski_total_parameters(label_parameters: float, experts: float = 64) -> float:
    """Return the N of Krajewski et al. 2024 for the size in a label such as "64x100M".

    A layer has 4 d^2 of attention and 8 d^2 a standard expert (arXiv 2402.07871), a
    dense layer 12 d^2: N = (8 E + 4) / 12 times the label, 43 times for E = 64.
    """
    return label_parameters * (8 * experts + 4) / 12


def hidden_granularity(ffn_granularity: float, ffn_to_hidden: float) -> float:
    """Return 2 d_model / d_expert for a granularity d_ff / d_expert, with d_ff / d_model."""
    return ffn_granularity * 2 / ffn_to_hidden


def coefficient_in_base(coefficient: float, *, power: int, base: float, to: float) -> float:
    """Return what multiplies log_to(x)^power where `coefficient` multiplies log_base(x)^power."""
    return float(coefficient * (math.log(to) / math.log(base)) ** power)
