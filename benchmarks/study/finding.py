"""What the study found, in sentences; each number is in the document too."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from benchmarks.study.leverage import DENSE, Leverage
from benchmarks.study.minima import Minimum
from benchmarks.study.prediction import Outcome
from benchmarks.study.speed import TimeRatio
from benchmarks.study.study import Study
from parallel.measurement.number_text import readable


def finding(study: Study) -> list[str]:
    """Return the sentences, the most important first."""
    return [
        *_minima_sentences(study.minima),
        *_leverage_sentences(study.leverage, study.time_ratios),
        *map(_outcome_sentence, study.outcomes),
        _law_sentence(study),
        _noise_sentence(study),
    ]


def _model(experts: int) -> str:
    return "dense model" if experts == DENSE else f"model with {experts} experts"


def _minima_sentences(minima: Sequence[Minimum]) -> list[str]:
    """Return the least losses of each budget, dense beside sparse."""
    found = []
    for flops, group in groupby(
        sorted(minima, key=lambda m: (m.flops, m.experts)), lambda m: m.flops
    ):
        inner = [m for m in group if m.best_loss is not None]
        texts = [
            f"{m.best_loss:.3f} ({_model(m.experts)},"
            f" {readable(m.best_active_parameters, '')} active parameters)"
            for m in inner
        ]
        if texts:
            found.append(f"Least loss at {flops:.2g} FLOPs, nats/token: {', '.join(texts)}.")
    return found


def _leverage_sentences(found: Sequence[Leverage], times: Sequence[TimeRatio]) -> list[str]:
    ratios = {one.experts: one for one in times}
    sentences = []
    for one in found:
        if one.source != "laws" or one.value is None or one.interval is None:
            continue
        low, high = one.interval
        text = (
            f"By the laws a dense model needs {one.value:.2f} times ({low:.2f} to {high:.2f}) the"
            f" FLOPs for the loss that {one.experts} experts reach at {one.flops:.2g}"
        )
        took = ratios.get(one.experts)
        if took is not None:
            net = one.value / took.median
            won = "saves" if net > 1 else "loses"
            text += (
                f"; as a sparse token takes {took.median:.2f} times as long here ({took.low:.2f} to"
                f" {took.high:.2f}), sparsity {won} time: {net:.2f} times"
            )
        sentences.append(f"{text}.")
    return sentences


def _outcome_sentence(one: Outcome) -> str:
    measured = " and ".join(f"{loss:.3f}" for loss in one.measured)
    where = {0: "outside", len(one.measured): "inside"}.get(one.inside, "in part inside")
    return (
        f"The largest {_model(one.experts)} ({readable(one.active_parameters, '')} active"
        f" parameters, {readable(one.tokens, 'tokens')}, {one.flops:.2g} FLOPs) was predicted at"
        f" {one.predicted.loss:.3f} nats/token (95%: {one.predicted.low:.3f} to"
        f" {one.predicted.high:.3f}) before it ran; it reached {measured}, {where} the interval."
    )


def _law_sentence(study: Study) -> str:
    """Return which law of all runs describes and which one extrapolates best."""
    best = study.compared["comparison"][0]
    errors = study.held_out_errors
    near = min(errors, key=errors.__getitem__)
    return (
        f"Of {len(errors)} laws of all runs, {best['law']} describes them best (AICc, rms"
        f" {best['rms_log']:.2%}), and {near} is nearest to the largest runs (rms"
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
