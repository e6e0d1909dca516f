"""Samples of moe_grouped_fwd.csv: one expert block forward on one rank."""

from functools import partial
from pathlib import Path

from parallel.hardware.card import Card
from parallel.planner.calibration.samples import Sample, Terms, read_rows
from parallel.planner.compute_time.expert_block import ExpertBlock, expert_forward_seconds
from parallel.planner.compute_time.grouped_gemm import ExpertRows

EXPERT_SIZES = ("hidden", "ffn", "topk", "experts", "etp", "ep", "tokens", "distribution")
_COLUMNS = (("bf16", "bf16"), ("fp8", "fp8"), ("fp8_block", "fp8-blockwise"), ("nvfp4", "nvfp4"))
_NOT_GATED = (2688, 1856)
"""Hidden and inner size of the table's one model without gates (its README)."""
_UNTHROTTLED = 0
"""Repetitions: these runs reach 0.82 of the peak, above what the power limit leaves products of
random numbers, so the limit did not hold them back."""


def expert_samples(folder: Path, card_name: str, *, held_out: bool) -> list[Sample]:
    """Return the samples with even routing.

    NVFP4 with all experts on one rank is left out: it takes as long as half the rows on each of
    two ranks, so that another kernel ran there.
    """
    samples = []
    for row in read_rows(folder / "moe_grouped_fwd.csv", EXPERT_SIZES, held_out=held_out):
        if row["distribution"] != "balanced":
            continue
        sizes = [int(row[name]) for name in EXPERT_SIZES[:-1]]
        hidden, ffn, top_k, experts, etp, ep, tokens = sizes
        block = ExpertBlock(
            hidden=hidden,
            ffn=ffn // etp,
            rows=ExpertRows.even(experts // ep, tokens * top_k / ep),
            tokens=tokens,
            entries=tokens * top_k,
            looped=False,
            gated=(hidden, ffn) != _NOT_GATED,
        )
        for column, precision in _COLUMNS:
            us = row.get(f"{card_name}_{column}_us")
            if not us or (precision == "nvfp4" and ep == 1):
                continue
            samples.append(
                Sample(
                    group=f"experts {precision}",
                    seconds=float(us) * 1e-6,
                    predict=partial(_predicted, block, precision),
                )
            )
    return samples


def _predicted(block: ExpertBlock, precision: str, card: Card, _: Terms) -> float:
    return expert_forward_seconds(card, block, precision, repetitions=_UNTHROTTLED)
