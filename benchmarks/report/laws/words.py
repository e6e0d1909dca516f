"""What a fit says, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.curves import Curve
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.tables import residual_lines
from benchmarks.report.laws.drawing import column_name, short

OUTERMOST = {"scale": "the largest size", "sparsity": "the sparsest models"}


def finding(fits: Sequence[LawFit], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page's first sentence: how well the points are described, and by which law."""
    if len(fits) == 1:
        return _describes(fits[0])
    best = rows[0]
    scored = [row for row in rows if row["largest_scale_rms_log"] is not None]
    text = f"Of {len(rows)} laws {best['law']} describes the points best (AICc)"
    if scored:
        far = min(scored, key=lambda row: row["largest_scale_rms_log"])
        also = "it also" if far["law"] == best["law"] else far["law"]
        text += (
            f"; {also} predicts the largest size best when that is left out, within"
            f" {far['largest_scale_rms_log']:.2%} (rms)"
        )
    return f"{text}."


def _describes(one: LawFit) -> str:
    document = one.document
    text = (
        f"The law describes {document['points']:,} runs within"
        f" {document['residuals']['rms_log']:.2%} (rms)"
    )
    errors = [
        f"{OUTERMOST[kind]} within {left['outermost']['rms_log_error']:.2%}"
        for kind in OUTERMOST
        if (left := document["extrapolation"][kind]) is not None
    ]
    return f"{text}; left out, it predicts {' and '.join(errors)}." if errors else f"{text}."


def fit_words(one: LawFit, curve: Curve | str) -> list[str]:
    """Return what is known of one fit: residuals, what stays open, the best size beyond."""
    document = one.document
    lines = residual_lines(document)
    open_ones = document["unidentified"]
    lines.append(
        f"Not identified: {', '.join(open_ones)}. Read intervals of predictions, not these numbers."
        if open_ones
        else "Every coefficient is identified by these points."
    )
    lines += [_direction(one) for one in document["identifiability"]["directions"]]
    if not isinstance(curve, str) and one.fit.law.space is not None:
        lines += _best(curve, column_name(one.fit.law.space.size).lower())
    lines += [f"Warning: {text}." for text in document["warnings"]]
    return [*lines, *document["notes"]]


def _direction(direction: Mapping[str, Any]) -> str:
    named = " and ".join(direction["weights"])
    width = direction["half_width"]
    if width is None:
        return f"{named} have no effect at these points."
    together = " together" if len(direction["weights"]) > 1 else ""
    return f"{named} may change{together} by a factor of {1 + width:.2g} with hardly an effect."


def _best(curve: Curve, size: str) -> list[str]:
    """Return the best size at the largest number of FLOPs on the page."""
    if not curve.sizes[-1, 0] > 0:
        return []
    loss = curve.losses[-1]
    text = (
        f"At {curve.flops[-1]:.2g} FLOPs the least loss is {loss[0]:.3f} nats/token, at"
        f" {short(curve.sizes[-1, 0])} {size} and {short(curve.tokens[-1, 0])} tokens"
    )
    if loss.size > 2:
        low, high = np.nanpercentile(loss, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        text += f"; {LEVEL:.0%} of resampled fits give a loss of {low:.3f} to {high:.3f}"
    return [f"{text} (modelled, beyond the runs)."]
