"""Errors of every card's model on the tenth of each table that no fit saw, and cross-checks.

Limits are the errors of 2026-11 with a little room: median and 90th percentile of
|ln(modelled / measured)|.
"""

import csv
import tomllib
from math import log
from pathlib import Path
from statistics import median

import pytest

from parallel.hardware.card import Card, load_card
from parallel.planner.calibration.gemm_table import gemm_samples
from parallel.planner.calibration.refit import all_samples
from parallel.planner.calibration.samples import ErrorSummary, summarize_errors
from parallel.planner.compute_time.expert_block import ExpertBlock, expert_forward_seconds
from parallel.planner.compute_time.gemm import gemm_seconds
from parallel.planner.compute_time.grouped_gemm import (
    ExpertRows,
    grouped_gemm_seconds,
    grouped_wgrad_seconds,
)
from parallel.planner.compute_time.imbalance import Imbalance, busiest_rank_rows

TABLES = Path(__file__).parents[1] / "held_out"
LIMITS = tomllib.loads((TABLES / "limits.toml").read_text(encoding="utf-8"))
TERMS = tomllib.loads((TABLES / "terms.toml").read_text(encoding="utf-8"))


def errors_of(card: str) -> dict[str, ErrorSummary]:
    samples = all_samples(TABLES, card, held_out=True)
    return summarize_errors(samples, load_card(card), TERMS[card])


@pytest.mark.parametrize("card", sorted(LIMITS))
def test_held_out_errors_are_within_limits(card: str) -> None:
    errors = errors_of(card)
    assert set(errors) == set(LIMITS[card])
    for group, (count, most_median, most_p90) in LIMITS[card].items():
        assert errors[group].count == count
        assert errors[group].median <= most_median, group
        assert errors[group].p90 <= most_p90, group


GOALS = {"gemm": 0.06, "attention": 0.08, "experts": 0.12, "cast": 0.08}
"""Of the median error, by table."""
MISSED = {
    ("b200", "attention backward"),
    ("b200", "attention forward"),
    ("b200", "attention prefill burst"),
    ("b200", "attention prefill latent"),
    ("b200", "experts nvfp4"),
    ("b200", "gemm bf16 sustained"),
    ("b200", "gemm fp8-blockwise sustained"),
    ("gb200", "attention prefill burst"),
    ("gb200", "attention prefill latent"),
    ("gb200", "attention prefill sustained"),
    ("gb200", "experts nvfp4"),
    ("gb200", "gemm bf16 sustained"),
    ("gb200", "gemm fp8 burst"),
    ("h100", "attention prefill latent"),
    ("h100", "gemm fp8-blockwise burst"),
    ("h200", "gemm fp8-blockwise burst"),
}
"""Groups above their goal: docs/explanation/kernel_times.md says by how much, and why."""


def test_the_goals_are_met_but_for_what_is_named() -> None:
    missed = {
        (card, group)
        for card in LIMITS
        for group, error in errors_of(card).items()
        if error.median > GOALS[group.split()[0]]
    }
    assert missed == MISSED


def test_no_held_out_row_is_among_the_fitted() -> None:
    assert gemm_samples(TABLES, "h200", held_out=False) == []


def rows_of(name: str) -> list[dict[str, str]]:
    with (TABLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def training_ratios(card: Card, operation: str) -> dict[str, list[float]]:
    """Return ln(modelled / measured) by pass for products through Transformer Engine on B200."""
    errors: dict[str, list[float]] = {}
    for row in rows_of("gemm_train_b200_te.csv"):
        if (row["op"] == "gemm") != (operation == "dense") or (
            operation == "looped" and row["pass"] == "wgrad" and row["out_dtype"] != "fp32"
        ):
            continue
        m, n, k, groups = (int(row[name]) for name in ("m", "n", "k", "groups"))
        rows = ExpertRows(((groups, m),))
        if operation == "dense":
            output_bytes = 8.0 if row["out_dtype"] == "fp32" else 2.0
            seconds = gemm_seconds(card, m, n, k, "bf16", output_bytes=output_bytes)
        elif row["pass"] == "wgrad":
            seconds = grouped_wgrad_seconds(card, rows, n, k, "bf16", looped=True)
        else:
            looped = operation == "looped"
            seconds = grouped_gemm_seconds(card, rows, n, k, "bf16", looped=looped)
        errors.setdefault(row["pass"], []).append(log(seconds / (float(row["us"]) * 1e-6)))
    return errors


def test_backward_products_are_off_by_what_forward_ones_are() -> None:
    dense = training_ratios(load_card("b200"), "dense")
    forward = median(dense["fwd"])
    # That machine is slow (README of the tables: 1.2 to 1.3 times), alike in all three passes.
    assert -0.35 < forward < -0.15
    assert median(dense["dgrad"]) == pytest.approx(forward, abs=0.08)
    assert median(dense["wgrad"]) == pytest.approx(forward, abs=0.08)


def test_transformer_engine_loops_over_experts() -> None:
    card = load_card("b200")
    dense = median(training_ratios(card, "dense")["fwd"])
    looped = training_ratios(card, "looped")
    for name in ("fwd", "dgrad"):
        assert median(looped[name]) == pytest.approx(dense, abs=0.1)
    one_call = training_ratios(card, "one call")["fwd"]
    assert median(one_call) < median(looped["fwd"]) - 0.1


@pytest.mark.parametrize("experts", [128, 256])
def test_power_law_routing_on_the_busiest_rank(experts: int) -> None:
    card = load_card("h100")
    errors, as_if_even = [], []
    for row in rows_of("moe_grouped_fwd.csv"):
        if row["distribution"] == "balanced" or int(row["experts"]) != experts:
            continue
        if not row["h100_bf16_us"]:
            continue
        tokens, top_k, ep = (int(row[name]) for name in ("tokens", "topk", "ep"))
        law = Imbalance(kind="power-law", exponent=float(row["distribution"].split("_")[-1]))
        busiest = busiest_rank_rows(law, experts=experts, top_k=top_k, ep=ep, tokens=tokens)
        even = ExpertRows.even(experts // ep, tokens * top_k / ep)
        for rows, kept in ((busiest, errors), (even, as_if_even)):
            block = ExpertBlock(
                hidden=int(row["hidden"]),
                ffn=int(row["ffn"]) // int(row["etp"]),
                rows=rows,
                tokens=tokens,
                entries=tokens * top_k,
                looped=False,
                gated=(row["hidden"], row["ffn"]) != ("2688", "1856"),
            )
            seconds = expert_forward_seconds(card, block, "bf16", repetitions=0)
            kept.append(abs(log(seconds / (float(row["h100_bf16_us"]) * 1e-6))))
    assert len(errors) > 5
    assert median(errors) < 0.15
    assert median(errors) < 0.6 * median(as_if_even)
