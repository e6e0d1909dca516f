"""What the study found, in sentences; each number is in the document too."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from benchmarks.study.kinds import DENSE
from benchmarks.study.leverage import Leverage
from benchmarks.study.minima import Minimum
from benchmarks.study.pairs import Pairs
from benchmarks.study.prediction import Outcome
from benchmarks.study.study import Study
from parallel.measurement.number_text import plain_number, readable


def finding(study: Study) -> list[str]:
    """Return the sentences, the most important first."""
    measured = max(one.flops for one in study.minima if one.experts == DENSE)
    times = {one.experts: one.median_time for one in study.pairs}
    return [
        # The most pairs say the most.
        *map(_pairs_sentence, sorted(study.pairs, key=lambda one: -one.count)),
        *_minima_sentences(study.minima),
        *(
            _leverage_sentence(one, measured, times.get(one.experts))
            for one in study.leverage
            if one.source == "laws" and one.value is not None
        ),
        *map(_outcome_sentence, study.outcomes),
        _law_sentence(study),
        _noise_sentence(study),
    ]


def _pairs_sentence(one: Pairs) -> str:
    half = one.gap_half_width
    ends = "" if half is None else f" (95%: {one.mean_gap - half:.3f} to {one.mean_gap + half:.3f})"
    text = (
        f"In {one.lower} of {one.count} pairs of runs of equal width, FLOPs and seed the"
        f" {_model(one.experts)} has the lower loss, by {one.mean_gap:.3f} nats/token in the"
        f" mean{ends} over {one.cells} widths and budgets"
    )
    if one.median_time is not None:
        text += (
            f"; its token took {one.median_time:.2f} times as long here ({one.least_time:.2f} to"
            f" {one.greatest_time:.2f})"
        )
    return f"{text}."


def _model(experts: int) -> str:
    return "dense model" if experts == DENSE else f"model with {experts} experts"


def _minima_sentences(minima: Sequence[Minimum]) -> list[str]:
    """Return the least losses of each budget, dense beside sparse."""
    found = []
    for flops, group in groupby(
        sorted(minima, key=lambda m: (m.flops, m.experts)), lambda m: m.flops
    ):
        texts = [_minimum_text(m) for m in group]
        found.append(
            f"Least loss at {plain_number(flops, 2)} FLOPs, nats/token: {', '.join(texts)}."
        )
    return found


def _minimum_text(one: Minimum) -> str:
    if one.best_loss is None:
        least, size = min(zip(one.losses, one.active_parameters, strict=True))
        return (
            f"{least:.3f} ({_model(one.experts)}, at the edge of the sizes that ran,"
            f" {readable(size, '')} active parameters)"
        )
    active = readable(one.best_active_parameters, "")
    return f"{one.best_loss:.3f} ({_model(one.experts)}, {active} active parameters)"


def _leverage_sentence(one: Leverage, measured: float, time: float | None) -> str:
    """Return one leverage by the laws, beside what a token takes more.

    Args:
        one: The leverage.
        measured: Most FLOPs of the dense runs that the law was fitted to.
        time: Seconds a token over the dense model's.
    """
    assert one.value is not None
    ends = "" if one.interval is None else f" ({one.interval[0]:.2f} to {one.interval[1]:.2f})"
    far = (
        ", beyond the dense runs that the law was fitted to"
        if (one.value * one.flops > measured * 1.05)
        else ""
    )
    text = (
        f"By the laws a dense model needs {one.value:.2f} times{ends} the FLOPs for the least loss"
        f" of {one.experts} experts at {plain_number(one.flops, 2)} FLOPs{far}"
    )
    if time is None or one.interval is None:
        return f"{text}."
    low, high = one.interval
    verdict = "more than" if low > time else "less than" if high < time else "not told apart from"
    return f"{text}: {verdict} what its token takes longer, {time:.2f} times."


def _outcome_sentence(one: Outcome) -> str:
    measured = " and ".join(f"{loss:.3f}" for loss in one.measured)
    where = {0: "outside", len(one.measured): "inside"}.get(one.inside, "in part inside")
    return (
        f"The largest {_model(one.experts)} ({readable(one.active_parameters, '')} active"
        f" parameters, {readable(one.tokens, 'tokens')}, {plain_number(one.flops, 2)} FLOPs) was"
        f" predicted at {one.predicted.loss:.3f} nats/token (95%: {one.predicted.low:.3f} to"
        f" {one.predicted.high:.3f}) before it ran; it reached {measured}, {where} the interval."
    )


def _law_sentence(study: Study) -> str:
    """Return which law of all runs describes and which one extrapolates best."""
    best = study.compared["comparison"][0]
    errors = study.held_out_errors
    near = min(errors, key=errors.__getitem__)
    return (
        f"Of {len(errors)} laws of all runs, {best['law']} has the best AICc (rms"
        f" {best['rms_log']:.2%}; {len(best['unidentified'])} of its {best['coefficients']}"
        f" coefficients are not identified), and {near} is nearest to the largest runs (rms"
        f" {errors[near]:.2%})."
    )


def _noise_sentence(study: Study) -> str:
    """Return how much losses of alike runs differ."""
    alike: dict[tuple[object, ...], list[float]] = {}
    for row in study.rows:
        key = row["experts"], row["hidden_size"], row["asked_held"]
        alike.setdefault(key, []).append(row["loss"])
    spreads = [np.std(losses, ddof=1) for losses in alike.values() if len(losses) > 1]
    if not spreads:
        return "Each run ran with one seed: there is no telling noise."
    pooled = float(np.sqrt(np.mean(np.square(spreads))))
    return (
        f"Losses of runs that differ in their seed have a standard deviation of {pooled:.3f}"
        f" nats/token ({len(spreads)} groups)."
    )
