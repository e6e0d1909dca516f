"""What the points of one kind of kernel, or of link, say of a machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median


@dataclass(frozen=True, kw_only=True)
class KindCalibration:
    """One kind's points and the factors that the card now has."""

    points: int
    factor: float
    """Median of measured over modelled time."""
    error_before: float
    """Median of |ln(modelled / measured)| without the factors."""
    error_after: float
    latency_factor: float | None = None
    """Of links: what all waits are multiplied by; None of kernels, which have one factor."""
    transfer_factor: float | None = None
    """Of links: what the seconds of a byte are multiplied by."""


def kernel_kind(ratios: Sequence[float]) -> KindCalibration:
    """Return the median of measured over modelled times, and what it leaves."""
    logs = [log(ratio) for ratio in ratios]
    middle = median(logs)
    return KindCalibration(
        points=len(logs),
        factor=exp(middle),
        error_before=median_error(logs),
        error_after=median_error([one - middle for one in logs]),
    )


def median_error(logs: Sequence[float]) -> float:
    """Return the median size of logarithms of ratios."""
    return median(abs(one) for one in logs)
