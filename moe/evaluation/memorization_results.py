"""Results of a memorization audit: numbers, intervals, and a finding in words.

Exposure is that of Carlini et al. (arXiv:1802.08232, section 4.2), extraction that of
arXiv:2202.07646, section 3.
"""

import math
from dataclasses import dataclass
from typing import Any

from data.store.manifest import SplitName

CHANCE_BITS = 1 / math.log(2)
"""Mean exposure of a secret that was never seen, bits: that of a uniform rank."""
SIGNIFICANT = 0.01


@dataclass(frozen=True, kw_only=True)
class CanaryGroup:
    """Canaries planted equally often."""

    repeats: int
    exposures_bits: list[float]
    extracted: int
    """Whose secret the model writes out, given the frame."""

    @property
    def count(self) -> int:
        """Canaries."""
        return len(self.exposures_bits)

    @property
    def mean_bits(self) -> float:
        """Mean exposure."""
        return sum(self.exposures_bits) / self.count

    @property
    def p_value(self) -> float:
        """Chance of such exposures if nothing was memorized (Fisher's combined test).

        A rank among the candidates is a p-value whose negative binary logarithm is the exposure;
        the statistic has a chi-squared distribution with 2n degrees of freedom.
        """
        half = math.log(2) * sum(self.exposures_bits)
        terms = (
            k * math.log(half) - math.lgamma(k + 1) if half else 0.0 for k in range(self.count)
        )
        return min(1.0, sum(math.exp(term - half) for term in terms))

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "repeats": self.repeats,
            "canaries": self.count,
            "mean_exposure_bits": self.mean_bits,
            "exposures_bits": self.exposures_bits,
            "p_value": self.p_value,
            "extracted": self.extracted,
        }


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Passages of a split, and how many the model writes on verbatim."""

    split: SplitName
    count: int
    extracted: int

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the rate (Wilson's score interval)."""
        if not self.count:
            return 0.0, 1.0
        z2, n, rate = 1.96**2, self.count, self.extracted / self.count
        centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
        half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        low, high = self.interval
        return {
            "split": self.split,
            "passages": self.count,
            "extracted": self.extracted,
            "rate": self.extracted / self.count if self.count else None,
            "rate_95": [low, high] if self.count else None,
        }


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Results of an audit."""

    candidates: int
    """Other secrets that each canary was compared with."""
    prompt_tokens: int
    """Tokens that the model was given of each passage, and had to write."""
    canaries: list[CanaryGroup]
    passages: list[Passages]

    @property
    def most_bits(self) -> float:
        """Largest exposure that so many candidates can show."""
        return math.log2(self.candidates + 1)

    def as_json(self) -> dict[str, Any]:
        """Return plain values, the finding in words among them."""
        return {
            "candidates": self.candidates,
            "most_exposure_bits": self.most_bits,
            "chance_exposure_bits": CHANCE_BITS,
            "canaries": [group.as_json() for group in self.canaries],
            "prompt_tokens": self.prompt_tokens,
            "passages": [some.as_json() for some in self.passages],
            "finding": finding(self),
        }


def finding(audit: Audit) -> str:
    """Return the results in words."""
    sentences = [_group_text(group, audit) for group in audit.canaries]
    if not sentences:
        sentences = ["The store has no canaries: exposure is not measured."]
    train, held_out = audit.passages
    low, high = train.interval
    text = (
        f"Of {train.count} training passages the model writes {train.extracted} on verbatim for"
        f" {audit.prompt_tokens} tokens ({low:.1%} to {high:.1%})"
    )
    if held_out.count:
        text += f", of {held_out.count} held-out ones {held_out.extracted}"
    return " ".join([*sentences, f"{text}."])


def _group_text(group: CanaryGroup, audit: Audit) -> str:
    times = {0: "never planted", 1: "planted once"}.get(
        group.repeats, f"planted {group.repeats} times"
    )
    verdict = "memorized" if group.p_value < SIGNIFICANT else "no sign of memorization"
    if group.repeats == 0:
        verdict = "as chance has it" if group.p_value >= SIGNIFICANT else "an odd control"
    return (
        f"Canaries {times}: exposure {group.mean_bits:.1f} bits (chance {CHANCE_BITS:.1f}, most"
        f" {audit.most_bits:.1f}), {verdict} (p = {group.p_value:.2g}); {group.extracted} of"
        f" {group.count} written out verbatim."
    )
