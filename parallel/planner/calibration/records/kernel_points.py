"""Measured over modelled seconds of records of `moe bench gemm` and `attention`; all benchmarks."""

from collections.abc import Callable, Mapping

from parallel.errors import ParallelError
from parallel.hardware.card import Card
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.bench_schema import (
    AttentionCase,
    AttentionResult,
    GemmCase,
    GemmResult,
)
from parallel.planner.calibration.records.layer_points import layer_ratios
from parallel.planner.calibration.records.step_points import step_ratios
from parallel.planner.calibration.records.unused import MOST_OF_PEAK, UnusedError
from parallel.planner.compute_time.attention import (
    AttentionShape,
    attention_kind,
    attention_seconds,
)
from parallel.planner.compute_time.gemm import (
    gemm_seconds,
    matrix_parameters,
    peak_flops_per_s,
)

CHOICE = "torch's choice"
"""The attention backend that a model gets."""
Ratios = Mapping[str, float]
"""Measured over modelled seconds, by kind of kernel."""


def gemm_ratios(card: Card, record: BenchRecord) -> Ratios:
    """Return the ratio of one product: the fastest implementation, sustained where measured.

    Raises:
        UnusedError: It is not one product, or in a number format that is not modelled.
    """
    case, result = record.read(GemmCase, "case"), record.read(GemmResult, "result")
    if case.groups != 1:
        raise UnusedError("products of several groups: moe bench layer measures experts")
    check_precision(card, case.dtype)
    held = [row.sustained_s for row in result.implementations if row.sustained_s is not None]
    measured = min(held or [row.burst_s.median for row in result.implementations])
    if card.architecture != "cpu":  # one file stands for all CPUs
        rate = 2.0 * case.m * case.n * case.k / measured
        if rate > MOST_OF_PEAK * peak_flops_per_s(card, case.dtype):
            raise UnusedError(
                f"products faster than {MOST_OF_PEAK:g} times the data sheet's {case.dtype} rate"
            )
    # Each call of a short run waits for the one before: the power limit has no time to act.
    modelled = gemm_seconds(
        card, case.m, case.n, case.k, case.dtype, repetitions=None if held else 1
    )
    return {f"gemm.{case.dtype}": measured / modelled}


def attention_ratios(card: Card, record: BenchRecord) -> Ratios:
    """Return the ratios of both passes of the backend that a model gets.

    Raises:
        UnusedError: That backend, or the number format on this card, is not there.
    """
    case, result = record.read(AttentionCase, "case"), record.read(AttentionResult, "result")
    if case.dtype not in ("bf16", "fp32"):
        raise UnusedError(f"attention in {case.dtype}: not modelled")
    check_precision(card, case.dtype)
    shape = AttentionShape(
        batch=case.batch_size,
        seq=case.seq_len,
        heads=case.num_heads,
        kv_heads=case.num_kv_heads,
        qk_dim=case.qk_head_dim,
        v_dim=case.v_head_dim,
        precision=case.dtype,
    )
    chosen = [row for row in result.backends if row.backend == CHOICE]
    if not chosen:
        raise UnusedError(f"attention without {CHOICE}")
    return {
        attention_kind(case.dtype, backward=backward): time.median
        / attention_seconds(card, shape, backward=backward, repetitions=1)
        for backward, time in ((False, chosen[0].forward_s), (True, chosen[0].backward_s))
    }


def check_precision(card: Card, precision: str) -> None:
    """Raise UnusedError where a card has no products in a number format."""
    try:
        matrix_parameters(card, precision)
    except ParallelError:
        raise UnusedError(f"{precision}: not modelled for {card.name}") from None


RATIOS: Mapping[str, Callable[[Card, BenchRecord], Ratios]] = {
    "gemm": gemm_ratios,
    "attention": attention_ratios,
    "step": step_ratios,
    "layer": layer_ratios,
}
"""By benchmark, in the order of calibration: experts stand on their products and bytes."""
