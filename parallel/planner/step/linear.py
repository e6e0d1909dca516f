"""Linear layers with their casts and tensor-parallel collectives."""

from parallel.planner.communication_time.overlap import Sharing, chunked_seconds
from parallel.planner.step.clock import Clock, MatrixPrecision
from parallel.planner.step.seconds import TermSeconds
from parallel.planner.workload import Workload


def add_product(
    seconds: TermSeconds,
    clock: Clock,
    rows: int,
    columns: int,
    depth: int,
    precision: MatrixPrecision | None = None,
) -> tuple[float, float]:
    """Add one product of a rank and its casts; returns the product's own seconds."""
    chosen = precision or clock.matrix
    product = clock.product(rows, columns, depth, chosen)
    seconds.add("matmul", *product)
    if chosen not in ("fp32", "bf16"):
        seconds.add("fp8_cast", *clock.casts(rows * depth, rows * columns))
    return product


def add_column_parallel(
    seconds: TermSeconds,
    clock: Clock,
    work: Workload,
    columns: int,
    depth: int,
    precision: MatrixPrecision | None = None,
) -> None:
    """Add a product whose input is gathered over tensor-parallel ranks.

    Backward, the input's gradient is scattered, and the input gathered once more for the weight's
    gradient, beside the product of the input's (`tensor_parallel/layers.py`).
    """
    product = add_product(seconds, clock, work.tokens, columns, depth, precision)
    _add_collectives(seconds, clock, work, depth, product)


def add_row_parallel(
    seconds: TermSeconds, clock: Clock, work: Workload, columns: int, depth: int
) -> None:
    """Add a product whose output is summed and scattered over tensor-parallel ranks."""
    product = add_product(seconds, clock, work.tokens, columns, depth)
    _add_collectives(seconds, clock, work, columns, product)


def _add_collectives(
    seconds: TermSeconds,
    clock: Clock,
    work: Workload,
    width: int,
    product: tuple[float, float],
) -> None:
    """Add one collective of each pass, as far as products in chunks do not hide it."""
    tp = work.layout.tp
    if tp == 1:
        return
    num_bytes = work.tokens * width * work.precision.element_bytes
    alone = clock.gather(num_bytes, tp)
    if not work.execution.overlap_tp:
        seconds.add("tensor_parallel", alone, alone)
        return
    # Copy engines move the chunks; the wire's rate is the collective's.
    sharing = Sharing(sms_taken=0, sms=clock.card.rates.sms)
    transfer = alone / (tp - 1)
    stretch = clock.parameters.chunk_stretch
    exposed = [
        chunked_seconds(stretch * compute / tp, transfer, tp, sharing) - compute
        for compute in (product[0], product[1] / 2)
    ]
    seconds.add("tensor_parallel", *exposed)
