"""What a fit says, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.laws.compare import LawFit
from benchmarks.laws.curves import Curve
from benchmarks.laws.fitted_law import FittedLaw
from benchmarks.laws.fitting.bootstrap import LEVEL
from benchmarks.laws.marked_models import MarkedModel
from benchmarks.laws.tables import residual_lines
from benchmarks.report.laws.drawing import column_name, short
from parallel.measurement.number_text import plain_number

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


def prediction_finding(found: Mapping[str, Any]) -> str:
    """Return the first sentence of a prediction's page: the best sizes and their loss."""
    best = found["best"]
    known = [
        f"{short(best[name])} {words}"
        for name, words in (
            ("active_parameters", "active parameters"), ("parameters", "in total"),
            ("experts", "experts"), ("tokens", "tokens"),
        )
        if name in best
    ]  # fmt: skip
    text = f"The least loss is {found['loss']:.3f} nats/token, with {', '.join(known)}"
    if (sides := found["interval"]) is not None:
        text += f"; {LEVEL:.0%} of resampled fits give {sides[0]:.3f} to {sides[1]:.3f}"
    return f"{text} (modelled)."


def runs_finding(models: Sequence[MarkedModel]) -> str:
    """Return how well a law predicts runs, apart for those that it was fitted to."""
    parts = []
    for words, chosen in (
        ("that it was not fitted to", [m for m in models if not m.in_fit]),
        ("of its own points", [m for m in models if m.in_fit]),
    ):
        logs = [float(np.log(m.predicted / m.measured)) for m in chosen if m.measured]
        if logs:
            rms, mean = float(np.sqrt(np.mean(np.square(logs)))), float(np.mean(logs))
            runs = f"{len(logs):,} run{'s' if len(logs) > 1 else ''}"
            parts.append(f"{runs} {words} within {rms:.2%} (rms), {mean:+.2%} in the mean")
    text = f"The law predicts {'; '.join(parts)}" if parts else "The law predicts no run here"
    far = sorted({column for model in models for column in model.beyond})
    if far:
        count = sum(bool(model.beyond) for model in models)
        named = ", ".join(column.replace("_", " ") for column in far)
        text += f"; {count:,} of them beyond the law's points in {named}"
    return f"{text}."


def law_words(fitted: FittedLaw, curve: Curve | str) -> list[str]:
    """Return what is known of a law: residuals, what stays open, the best size beyond."""
    lines, document = [], fitted.document
    if document is not None:
        lines += _fit_words(document)
    if not isinstance(curve, str) and fitted.law.space is not None:
        size = column_name(fitted.law.space.size).lower()
        lines += _best(curve, size, is_beyond=document is not None)
    if document is not None:
        lines += [f"Warning: {text}." for text in document["warnings"]]
    return [*lines, *fitted.law.notes]


def _fit_words(document: Mapping[str, Any]) -> list[str]:
    lines = residual_lines(document)
    open_ones = document["unidentified"]
    lines.append(
        f"Not identified: {', '.join(open_ones)}. Read intervals of predictions, not these numbers."
        if open_ones
        else "Every coefficient is identified by these points."
    )
    return lines + [_direction(one) for one in document["identifiability"]["directions"]]


def _direction(direction: Mapping[str, Any]) -> str:
    named = " and ".join(direction["weights"])
    width = direction["half_width"]
    if width is None:
        return f"{named} have no effect at these points."
    together = " together" if len(direction["weights"]) > 1 else ""
    factor = plain_number(1 + width, 2)
    return f"{named} may change{together} by a factor of {factor} with hardly an effect."


def _best(curve: Curve, size: str, *, is_beyond: bool) -> list[str]:
    """Return the best size at the largest number of FLOPs on the page."""
    if not curve.sizes[-1, 0] > 0:
        return []
    loss = curve.losses[-1]
    text = (
        f"At {plain_number(curve.flops[-1], 2)} FLOPs the least loss is {loss[0]:.3f} nats/token,"
        f" at {short(curve.sizes[-1, 0])} {size} and {short(curve.tokens[-1, 0])} tokens"
    )
    if loss.size > 2:
        low, high = np.nanpercentile(loss, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
        text += f"; {LEVEL:.0%} of resampled fits give a loss of {low:.3f} to {high:.3f}"
    return [f"{text} (modelled{', beyond the runs' if is_beyond else ''})."]
