"""Refits a card's `[kernels]` on the tables: `python -m parallel.planner.calibration.refit`.

Prints the section as TOML; then, to standard error, the tables' own terms and the errors of the
tenth of all rows that never reached the fit.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import tomli_w

from parallel.errors import ParallelError
from parallel.hardware.card import Card, load_card
from parallel.hardware.kernel_parameters import KernelParameters
from parallel.planner.calibration.attention_table import (
    prefill_attention_samples,
    training_attention_samples,
)
from parallel.planner.calibration.expert_table import expert_samples
from parallel.planner.calibration.fit_card import Fitted, fit_parameters
from parallel.planner.calibration.gemm_table import gemm_samples
from parallel.planner.calibration.samples import Sample, summarize_errors
from parallel.planner.calibration.start_values import start_values
from parallel.planner.calibration.stream_table import stream_samples

_CARD = ("launch_seconds", "memory_efficiency", "split_seconds")
_POWER = ("static_watts", "joules_per_byte", "power_response_seconds")
_MATRIX = ("efficiency", "tile_seconds", "small_tile_penalty", "joules_per_flop")
_ATTENTION = (
    "efficiency",
    "softmax_seconds",
    "wide_head_stretch",
    "block_seconds",
    "fixed_seconds",
)
_EXPERTS = ("gather_efficiency", "routing_entry_seconds", "routing_seconds")
_START_TERMS = {"cast_seconds": 2e-6, "cast_bytes": 3.0}
"""Of the tables' cast of x: seconds, and bytes an element (BF16 read, FP8 written)."""
_ENGINES = ("prefill burst", "prefill sustained", "prefill latent")


def all_samples(folder: Path, card_name: str, *, held_out: bool) -> list[Sample]:
    """Return the samples of one card in all tables of a folder that have it."""
    samples = []
    if (folder / f"gemm_{card_name}.csv").exists():
        samples += gemm_samples(folder, card_name, held_out=held_out)
    for backward in (False, True):
        samples += training_attention_samples(
            folder, card_name, held_out=held_out, backward=backward
        )
    samples += prefill_attention_samples(folder, card_name, held_out=held_out)
    samples += stream_samples(folder, card_name, held_out=held_out)
    return samples + expert_samples(folder, card_name, held_out=held_out)


def fit_card(card: Card, card_name: str, folder: Path, *, own_attention: bool = True) -> Fitted:
    """Return the card with `[kernels]` fitted on nine rows of ten, and the tables' own terms.

    A card that was never measured at its power limit keeps the power parameters that it has.
    Without `own_attention` it keeps attention's too, and a factor of the tables' machine is fitted.
    """
    samples = all_samples(folder, card_name, held_out=False)
    fitted = Fitted(card, _start_terms(card.kernels.matrix))
    groups = {sample.group for sample in samples}
    fitted = fit_parameters(fitted, _of(samples, "cast"), ["stream_efficiency"])
    power = _POWER if "gemm bf16 sustained" in groups else ()
    if "gemm bf16 burst" in groups:
        names = [*_CARD, *power, *(f"matrix.bf16.{name}" for name in _MATRIX)]
        fitted = fit_parameters(fitted, _of(samples, "gemm bf16"), names)
    for precision in [name for name in card.kernels.matrix if name != "bf16"]:
        chosen = [s for s in samples if s.group.startswith(f"gemm {precision} ")]
        if chosen:
            terms = [f"terms.{precision}.{term}" for term in _START_TERMS]
            names = [f"matrix.{precision}.{name}" for name in _MATRIX] + terms
            fitted = fit_parameters(fitted, chosen, names)
    return _fit_attention_and_experts(fitted, samples, own_attention=own_attention)


def _fit_attention_and_experts(
    fitted: Fitted, samples: list[Sample], *, own_attention: bool
) -> Fitted:
    forward = _of(samples, "attention forward") + _of(samples, "attention prefill")
    engines = [e for e in _ENGINES if any(s.group == f"attention {e}" for s in samples)]
    factors = [f"terms.{engine}.factor" for engine in engines]
    backward = _of(samples, "attention backward")
    if not own_attention:
        slow = _of(samples, "attention forward") + backward
        fitted = fit_parameters(fitted, slow + forward, [*factors, "terms.training.factor"])
    else:
        names = [f"attention_forward.{name}" for name in _ATTENTION]
        if _of(samples, "attention forward"):
            names += factors
        if forward:
            fitted = fit_parameters(fitted, forward, names)
        if backward:
            names = [f"attention_backward.{name}" for name in _ATTENTION]
            fitted = fit_parameters(fitted, backward, names)
    experts = _of(samples, "experts")
    if experts:
        precisions = sorted({sample.group.split()[1] for sample in experts})
        names = [*_EXPERTS, *(f"matrix.{name}.grouped_efficiency" for name in precisions)]
        fitted = fit_parameters(fitted, experts, names)
    return fitted


def _of(samples: list[Sample], prefix: str) -> list[Sample]:
    return [sample for sample in samples if sample.group.startswith(prefix)]


def _start_terms(precisions: Mapping[str, object]) -> dict[str, float]:
    terms = {f"{p}.{name}": value for p in precisions for name, value in _START_TERMS.items()}
    return {**terms, **{f"{name}.factor": 1.0 for name in (*_ENGINES, "training")}}


def kernels_toml(kernels: KernelParameters) -> str:
    """Return a `[kernels]` section, four digits of each number."""

    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {name: rounded(inner) for name, inner in value.items()}
        return float(f"{value:.4g}") if isinstance(value, float) else value

    values = kernels.model_dump(mode="json", exclude_defaults=True)
    text = tomli_w.dumps({"kernels": rounded(values)})
    return re.sub(r"tiles = \[.*?\n\]", _one_line, text, flags=re.DOTALL)


def _one_line(found: re.Match[str]) -> str:
    return re.sub(r",\s*\]", "]", re.sub(r"\s+", " ", found.group())).replace("[ ", "[")


def starting_card(card: Card, like: Card | None, attention_of: Card | None) -> Card:
    """Return the card with the values that its fit starts from.

    Args:
        card: The card.
        like: The card of the same architecture whose power parameters and backward attention it
            keeps where no table has its own.
        attention_of: The card whose attention it takes.
    """
    kernels = start_values(card.architecture)
    if attention_of is not None:
        lent = ("attention_forward", "attention_backward")
        kernels = kernels.model_copy(
            update={name: getattr(attention_of.kernels, name) for name in lent}
        )
    if like is not None:
        kept = {name: getattr(like.kernels, name) for name in _POWER}
        kept["attention_backward"] = like.kernels.attention_backward
        kernels = kernels.model_copy(update=kept)
    return card.model_copy(update={"kernels": kernels})


def main(arguments: list[str] | None = None) -> int:
    """Fit one card; return the exit code."""
    parser = argparse.ArgumentParser(prog="refit", description=__doc__)
    parser.add_argument("tables", type=Path, help="folder of the CSV tables")
    parser.add_argument("card", help="name of the card's file, as the tables write it: h200")
    parser.add_argument("--like", help="card whose power and backward attention this one keeps")
    parser.add_argument("--attention-of", help="card whose attention this one takes")
    parser.add_argument("--fitted-on", default="", help="what to write into `fitted_on`")
    options = parser.parse_args(arguments)
    try:
        like = None if options.like is None else load_card(options.like)
        lender = None if options.attention_of is None else load_card(options.attention_of)
        start = starting_card(load_card(options.card), like, lender)
        fitted = fit_card(start, options.card, options.tables, own_attention=lender is None)
        held_out = all_samples(options.tables, options.card, held_out=True)
    except ParallelError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    kernels = fitted.card.kernels.model_copy(update={"fitted_on": options.fitted_on})
    print(kernels_toml(kernels), end="")
    print(tomli_w.dumps({"terms": dict(fitted.terms)}), file=sys.stderr)
    for group, left in summarize_errors(held_out, fitted.card, fitted.terms).items():
        print(
            f"held out: {group:28} {left.count:5} rows, median {left.median:.3f}, "
            f"p90 {left.p90:.3f}, bias {left.bias:+.3f}",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
