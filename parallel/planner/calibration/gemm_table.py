"""Samples of gemm_<card>.csv: products by shape and precision, short runs and sustained ones."""

from functools import partial
from pathlib import Path

from parallel.hardware.card import Card
from parallel.planner.calibration.samples import Sample, Terms, read_rows
from parallel.planner.compute_time.gemm import gemm_seconds

BURST_REPETITIONS = 6
"""Repetitions of a short run (the tables' README)."""

# Column, precision, whether sustained, least us: shorter sustained runs were bound by the host.
_COLUMNS = (
    ("bf16_us", "bf16", False, 0.0),
    ("bf16_sustained_us", "bf16", True, 0.0),
    ("fp8_us", "fp8", False, 0.0),
    ("fp8_block_us", "fp8-blockwise", False, 0.0),
    ("fp8_block_sustained_us", "fp8-blockwise", True, 600.0),
    ("nvfp4_us", "nvfp4", False, 0.0),
    ("nvfp4_sustained_us", "nvfp4", True, 200.0),
)
GEMM_SIZES = ("m", "n", "k")


def gemm_samples(folder: Path, card_name: str, *, held_out: bool) -> list[Sample]:
    """Return the samples of a card's products; times below BF16 hold the cast of x."""
    samples = []
    for row in read_rows(folder / f"gemm_{card_name}.csv", GEMM_SIZES, held_out=held_out):
        m, n, k = (int(row[name]) for name in GEMM_SIZES)
        for column, precision, sustained, least_us in _COLUMNS:
            if not row.get(column) or float(row[column]) < least_us:
                continue
            repetitions = None if sustained else BURST_REPETITIONS
            run = "sustained" if sustained else "burst"
            samples.append(
                Sample(
                    group=f"gemm {precision} {run}",
                    seconds=float(row[column]) * 1e-6,
                    predict=partial(_predicted, m, n, k, precision, repetitions),
                )
            )
    return samples


def _predicted(
    m: int, n: int, k: int, precision: str, repetitions: int | None, card: Card, terms: Terms
) -> float:
    seconds = gemm_seconds(card, m, n, k, precision, repetitions=repetitions)
    if precision == "bf16":
        return seconds
    passes = terms[f"{precision}.cast_bytes"] * m * k / card.rates.memory_bytes_per_s
    return seconds + terms[f"{precision}.cast_seconds"] + passes
