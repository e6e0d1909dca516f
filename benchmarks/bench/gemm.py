"""`moe bench gemm`: matrix products alone, in bursts and sustained, beside the device's peak."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.gemm_shapes import Gemm, model_gemms, parse_gemm
from benchmarks.bench.instruments import best_rate
from benchmarks.bench.kernel_timing import Kernel, burst_times, sustained_time
from benchmarks.bench.matmul import DTYPES, check_dtype, check_sizes, kernels
from benchmarks.bench.metering import mean_power, open_meter
from benchmarks.bench.session import BenchSession, bench_session
from benchmarks.errors import BenchmarkError
from moe.config.experiment import load_model
from parallel.hardware.datasheet import datasheet_peak
from parallel.hardware.probe import describe_device, measure_matmul_rate, utilization
from parallel.measurement.intervals import median_interval

FP8_PEAK_SIZE = 8192
"""Of the square product that is FP8's measured peak, as of other formats on a GPU."""


@dataclass(frozen=True, kw_only=True)
class GemmPlan:
    """Which products are measured."""

    models: Sequence[str]
    shapes: Sequence[str]
    tokens: int
    """Of the models' products."""
    dtypes: Sequence[str]
    sustained_s: float
    """How long each runs back to back, s; 0: not at all."""


def run(plan: GemmPlan, options: BenchOptions) -> list[dict[str, Any]]:
    """Measure the products of all models and all given ones in every number format.

    Raises:
        BenchmarkError: There is none, a format is not this device's, or a size does not fit it.
    """
    gemms = [("given", parse_gemm(text)) for text in plan.shapes]
    for name in plan.models:
        gemms += [(name, gemm) for gemm in model_gemms(load_model(name), plan.tokens)]
    if not gemms:
        raise BenchmarkError("nothing to measure: name a model, or give --shape 8192x4096x2048")
    with bench_session(options) as session:
        refuse_sections(session, "precision")
        peak = cache(partial(measured_peak, session.engine.device))
        points = dict.fromkeys(
            (name, gemm, gemm.dtype or dtype)
            for dtype in plan.dtypes
            for name, gemm in gemms
            if dtype != "fp8" or gemm.runs_in_fp8
        )
        cases = []
        for name, gemm, dtype in points:
            check_dtype(dtype, session.engine.device)
            check_sizes(gemm, dtype)
            key = {"model": name, "role": gemm.role, "m": gemm.m, "n": gemm.n, "k": gemm.k,
                   "groups": gemm.groups, "dtype": dtype, "sustained_s": plan.sustained_s,
                   "repeats": options.repeats, "warmup": options.warmup,
                   **session.sections}  # fmt: skip
            seconds = plan.sustained_s
            cases.append(Case(key, partial(measure, gemm, dtype, seconds, session, peak)))
        return session.run("gemm", cases)


def refuse_sections(session: BenchSession, *names: str) -> None:
    """Raise BenchmarkError where `--set` has keys of sections that would change nothing."""
    for name in names:
        if name in session.sections:
            raise BenchmarkError(f"--set {name}...: it changes no kernel alone: use --dtype")


def measured_peak(device: torch.device, dtype: str) -> dict[str, Any]:
    """Return the highest of three measured rates of square products in a number format."""
    if dtype != "fp8":
        return best_rate(measure_matmul_rate(device, DTYPES[dtype]) for _ in range(3))
    size = FP8_PEAK_SIZE
    square = Gemm(role="peak", m=size, n=size, k=size)
    times = burst_times(kernels(square, dtype, device)["mm"], device, repeats=5, warmup=1)
    source = f"measured: float8_e4m3fn product of {size} x {size} matrices on this rank's device"
    return {"flops_per_s": square.flops / median_interval(times).median, "source": source}


def measure(
    gemm: Gemm, dtype: str, sustained_s: float, session: BenchSession, peak: Any
) -> dict[str, Any]:
    """Measure one product with every implementation.

    `peak` returns the measured peak of a number format; it is asked once for each.
    """
    device = session.engine.device
    sheet = datasheet_peak(describe_device(device).get("name"), dtype)
    measured = peak(dtype)
    rows = [
        {"implementation": name}
        | _rates(kernel, gemm, measured, sustained_s, session)
        for name, kernel in kernels(gemm, dtype, device).items()
    ]  # fmt: skip
    fastest_s = min(row["burst_s"]["median"] for row in rows)
    for row in rows:
        row["time_over_fastest"] = row["burst_s"]["median"] / fastest_s
        row["share_of_datasheet"] = row["burst_flops_per_s"] / sheet.value if sheet.value else None
    return {
        "flops": gemm.flops,
        "implementations": rows,
        "peak": measured,
        "datasheet_peak": sheet.to_json(),
        # `highest`: FP32 products are not rounded to TF32.
        "fp32_matmul_precision": (
            torch.get_float32_matmul_precision() if dtype == "fp32" else None
        ),
    }


def _rates(
    kernel: Kernel,
    gemm: Gemm,
    peak: Mapping[str, Any],
    sustained_s: float,
    session: BenchSession,
) -> dict[str, Any]:
    """Return one implementation's times, rates and power."""
    device, options = session.engine.device, session.options
    burst = median_interval(burst_times(kernel, device, options.repeats, options.warmup))
    row: dict[str, Any] = {
        "burst_s": burst.to_json(),
        "burst_flops_per_s": gemm.flops / burst.median,
        "share_of_measured_peak": utilization(gemm.flops / burst.median, peak),
        "sustained_s": None,
        "sustained_flops_per_s": None,
        "sustained_time_over_burst": None,
        "sustained_power": None,
    }
    if sustained_s:
        meter = open_meter(session.probe, session.engine)
        held = sustained_time(kernel, device, sustained_s, burst.median, meter)
        row |= {
            "sustained_s": held.call_s,
            "sustained_flops_per_s": gemm.flops / held.call_s,
            "sustained_time_over_burst": held.call_s / burst.median,
            "sustained_power": mean_power(meter, "evaluate", held.measured_s).to_json(),
        }
    return row
