"""A step and its floor in turn: what each part of the step costs above its own floor."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch

from benchmarks.bench.cases import BenchOptions
from benchmarks.bench.floor import parts
from benchmarks.bench.floor.meter import WORKING_SETS, FloorMeter, FloorTimes
from benchmarks.bench.floor.products import StepSize, step_attention, step_products
from benchmarks.bench.floor.traffic import step_traffic
from benchmarks.bench.matmul import DTYPES
from benchmarks.bench.time_breakdown import time_breakdown
from benchmarks.bench.trainer import MeasuredTrainer
from moe.config.experiment import Experiment
from moe.model.routing_rule import RoutingDecision
from moe.routing.decision_hooks import decision_hook
from parallel.measurement.intervals import median_interval

MOST_ROUNDS = 7
"""Each takes about five steps. The extremes of seven hold the median in 98% of cases."""
SPLIT_STEPS = 1
"""Steps of a round whose parts are timed."""
_NOT_PARTS = ("step", "communication")
_CALLBACKS_REASON = "no part of a benchmarked step: `moe train` calls them between steps"


@dataclass(frozen=True)
class _Round:
    """Measured within seconds of each other."""

    step_s: float
    split_s: Mapping[str, float | None]
    floor: FloorTimes


def measure_floor(ours: MeasuredTrainer, options: BenchOptions) -> dict[str, Any]:
    """Measure step, parts and floor in turn, under the routing that is in force.

    Parts without a measurement are null with a reason, as is everything where this model's
    products alone cannot be told.
    """
    reason = missing_reason(ours.experiment, ours.engine.world_size)
    if reason is not None:
        return {"reason": reason, "step_over_floor": None, "parts": []}
    meter = _meter(ours)
    rounds = []
    for _ in range(min(options.repeats, MOST_ROUNDS)):
        step_s = ours.step()
        rounds.append(_Round(step_s, time_breakdown(ours, SPLIT_STEPS), meter.measure()))
    return summary(meter, rounds)


def missing_reason(experiment: Experiment, world_size: int) -> str | None:
    """Return why the floor cannot be measured, if so."""
    if world_size > 1:
        return "measured with one rank only: on several, layers are divided and ranks wait"
    if experiment.precision.fp8 != "none":
        return "products are measured in FP32 and BF16 only, which is no floor of FP8"
    return None


def expert_loads(ours: MeasuredTrainer) -> dict[int, list[tuple[int, ...]]]:
    """Run one step; returns the rows of each expert, by layer (from 0), for each micro-batch."""
    found: dict[int, list[tuple[int, ...]]] = defaultdict(list)

    def count(layer_number: int, decision: RoutingDecision) -> None:
        if torch._C._current_graph_task_id() >= 0:  # recomputation routes the same tokens again
            return
        chosen = decision.experts[decision.kept]
        counts = torch.bincount(chosen, minlength=decision.logits.shape[-1])
        found[layer_number - 1].append(tuple(counts.tolist()))

    with decision_hook(ours.routers(), count):
        ours.step()
    return dict(found)


def _meter(ours: MeasuredTrainer) -> FloorMeter:
    experiment, device = ours.experiment, ours.engine.device
    model, train, dtype = experiment.model, experiment.train, experiment.precision.dtype
    size = StepSize(
        seq_len=train.seq_len,
        micro_batch_size=train.micro_batch_size,
        micro_batches=train.global_batch_size // train.micro_batch_size,
    )
    return FloorMeter(
        step_products(model, size, expert_loads(ours)),
        step_attention(model, size),
        step_traffic(model, size, DTYPES[dtype].itemsize),
        dtype,
        device,
    )


def summary(meter: FloorMeter, rounds: Sequence[_Round]) -> dict[str, Any]:
    """Return the whole, its parts and the products, from all rounds."""
    split_step_s = fmean(float(one.split_s["step"] or 0.0) for one in rounds)
    return {
        "reason": None,
        "step_s": median_interval([one.step_s for one in rounds]).to_json(),
        "floor_s": median_interval([one.floor.total_s for one in rounds]).to_json(),
        "step_over_floor": median_interval(
            [one.step_s / one.floor.total_s for one in rounds]
        ).to_json(),
        "split_step_s": split_step_s,
        "parts": _part_rows(meter, rounds, split_step_s),
        "products": _product_rows(meter, rounds),
        "memory_rates": [
            {
                "working_set_bytes": size,
                "bytes_per_s": median(one.floor.rates[size] for one in rounds),
            }
            for size in WORKING_SETS
        ],
    }


def _part_rows(
    meter: FloorMeter, rounds: Sequence[_Round], split_step_s: float
) -> list[dict[str, Any]]:
    """Return a row for each part; measured seconds add up to `split_step_s`."""
    rows = []
    for name in rounds[0].split_s:
        if name in _NOT_PARTS:
            continue
        measured_s = fmean(float(one.split_s[name] or 0.0) for one in rounds)
        compute_s = _median_seconds([_compute_s(one.floor, name) for one in rounds])
        memory_s = _median_seconds([one.floor.traffic_s.get(name) for one in rounds])
        flops = [one.flops for one in meter.products if one.part == name]
        flops += [one.flops for one in meter.cores if one.part == name]
        known = [seconds for seconds in (compute_s, memory_s) if seconds is not None]
        floor_s = sum(known) if known else None
        rows.append(
            {
                "part": name,
                "measured_s": measured_s,
                "step_share": measured_s / split_step_s,
                "compute_floor_s": compute_s,
                "memory_floor_s": memory_s,
                "floor_s": floor_s,
                "above_floor_s": None if floor_s is None else measured_s - floor_s,
                "flops": sum(flops),
                "bytes": sum(one.total_bytes for one in meter.traffic if one.part == name),
                "reason": None if known else "no product, and no traffic that must be",
            }
        )
    names = ("measured_s", "step_share", "compute_floor_s", "memory_floor_s", "floor_s",
             "above_floor_s", "flops", "bytes")  # fmt: skip
    unmeasured = dict.fromkeys(names) | {"reason": _CALLBACKS_REASON}
    return [*rows, {"part": parts.CALLBACKS, **unmeasured}]


def _compute_s(floor: FloorTimes, part: str) -> float | None:
    seconds = [value for (name, _, _), value in floor.product_s.items() if name == part]
    return sum(seconds) if seconds else None


def _median_seconds(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _product_rows(meter: FloorMeter, rounds: Sequence[_Round]) -> list[dict[str, Any]]:
    """Return the seconds of each kind of product in a step, and the kernel that was fastest."""
    return [
        {
            "part": key[0],
            "role": key[1],
            "pass": key[2],
            "kernel": meter.kernel_names.get(key, "scaled_dot_product_attention"),
            "floor_s": median(one.floor.product_s[key] for one in rounds),
        }
        for key in rounds[0].floor.product_s
    ]
