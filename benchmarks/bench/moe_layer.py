"""`moe bench layer` and `moe bench routing`: one MoE layer alone, forward and backward.

Shapes: S tokens (one sequence), H hidden.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

import torch

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.forced_routing import RoutingProfile, max_over_mean
from benchmarks.bench.instruments import best_rate, synchronize
from benchmarks.bench.layer_shape import LayerShape, published_layers
from benchmarks.bench.natural.layer_routing import (
    LayerRouting,
    check_layer_profiles,
    layer_routings,
)
from benchmarks.bench.natural.replay import Replay
from benchmarks.bench.session import BenchSession, bench_session
from benchmarks.bench.trainer import measure_peak_rate
from moe.model.build import build_model
from parallel.hardware.probe import utilization
from parallel.measurement.intervals import median_interval


def run(
    bench: str,
    shapes: Sequence[LayerShape],
    profiles: Sequence[RoutingProfile],
    replay: Replay | None,
    options: BenchOptions,
) -> list[dict[str, Any]]:
    """Measure every shape under every profile; returns the records (on rank 0).

    Raises:
        BenchmarkError: `replay` is of other experts, or natural routing has none.
    """
    check_layer_profiles(profiles, replay, shapes)
    routings = layer_routings(profiles, replay)
    with bench_session(options) as session:
        cases = [
            Case(
                {**asdict(shape), "routing": [str(p) for p in profiles],
                 "replay": None if replay is None else replay.label,
                 "repeats": options.repeats, **session.sections},
                partial(measure, shape, routings, session),
            )
            for shape in shapes
        ]  # fmt: skip
        return session.run(bench, cases)


@dataclass
class _Timings:
    """Timed passes under one routing."""

    routing: LayerRouting
    forward_s: list[float] = field(default_factory=list)
    backward_s: list[float] = field(default_factory=list)
    imbalances: list[float] = field(default_factory=list)
    """The busiest expert's load over the mean, in each pass."""

    @property
    def total_s(self) -> list[float]:
        return [a + b for a, b in zip(self.forward_s, self.backward_s, strict=True)]


def measure(
    shape: LayerShape, routings: Sequence[LayerRouting], session: BenchSession
) -> dict[str, Any]:
    """Measure one shape; routings take turns, so that drift is shared."""
    layer, options = MeasuredLayer(shape, session), session.options
    peaks = [measure_peak_rate(session.engine, session.probe)]
    timings = [_Timings(routing) for routing in routings]
    for number in range(options.warmup + options.repeats):
        # Who is first changes from turn to turn.
        for timing in timings if number % 2 else reversed(timings):
            layer.force_routing(timing.routing, number)
            forward_s, backward_s = layer.forward_backward()
            if number >= options.warmup:
                timing.forward_s.append(forward_s)
                timing.backward_s.append(backward_s)
                timing.imbalances.append(layer.last_imbalance)
    peaks.append(measure_peak_rate(session.engine, session.probe))
    peak = best_rate(peaks)
    forced = [timing for timing in timings if timing.routing.profile.kind == "forced"]
    base = forced[0] if forced else None
    rows = [_row(timing, base, shape, peak, session) for timing in timings]
    published = published_layers(shape)
    return {"routing": rows, "peak": peak, "parameters": layer.num_parameters,
            "published": published}  # fmt: skip


def _row(
    timing: _Timings,
    base: _Timings | None,
    shape: LayerShape,
    peak: Mapping[str, Any],
    session: BenchSession,
) -> dict[str, Any]:
    """Return the result of a routing; `base` is the forced one, if there is."""
    forward, backward = median_interval(timing.forward_s), median_interval(timing.backward_s)
    total_s = forward.median + backward.median
    # A backward pass takes two products where the forward pass takes one.
    rate = 3 * shape.forward_flops / total_s
    over_forced = None
    if base is not None:
        ratios = [a / b for a, b in zip(timing.total_s, base.total_s, strict=True)]
        over_forced = median_interval(ratios)
    return {
        **timing.routing.describe(shape, session.engine.world_size),
        "busiest_over_even": fmean(timing.imbalances),
        "forward_s": forward.to_json(),
        "backward_s": backward.to_json(),
        "tokens_per_s": shape.tokens / total_s,
        "flops_per_s_per_device": rate,
        "share_of_measured_peak": utilization(rate, peak),
        "time_over_forced": None if over_forced is None else over_forced.median,
        "time_over_forced_interval": None if over_forced is None else over_forced.to_json(),
    }


class MeasuredLayer:
    """An MoE layer with random weights, fed random hidden states."""

    def __init__(self, shape: LayerShape, session: BenchSession) -> None:
        self.shape, self.engine = shape, session.engine
        precision = session.probe.precision
        self.dtype = torch.bfloat16 if precision.dtype == "bf16" else torch.float32
        [chunk] = build_model(shape.model(), session.engine.layout, precision, seed=1)
        self.mlp = chunk.decoder.layers[0].mlp
        self.mlp.train()
        self.last_imbalance = math.nan
        """The busiest expert's load over the mean, in the last pass."""
        self.mlp.router.decision_hooks.append(self._record_imbalance)
        generator = torch.Generator().manual_seed(2)
        hidden = torch.randn(shape.tokens, 1, shape.hidden_size, generator=generator)
        self._hidden = hidden.to(self.engine.device, self.dtype)
        self._grad_output = torch.ones_like(self._hidden)

    @property
    def num_parameters(self) -> int:
        """Parameters of the layer on this rank."""
        return sum(p.numel() for p in self.mlp.parameters())

    def _record_imbalance(self, _layer: int, decision: Any) -> None:
        self.last_imbalance = max_over_mean(decision.experts.cpu(), self.shape.num_experts)

    def force_routing(self, routing: LayerRouting, repeat: int) -> None:
        """Route the tokens of a repeat."""
        engine = self.engine
        experts = routing.experts(self.shape, repeat, engine.rank, engine.world_size)
        self.mlp.router.forced_experts = None if experts is None else experts.to(engine.device)

    def forward_backward(self) -> tuple[float, float]:
        """Return seconds of a forward and of a backward pass, gradients to input and weights."""
        hidden = self._hidden.clone().requires_grad_()
        self.mlp.zero_grad(set_to_none=True)
        synchronize(self.engine.device)
        begin = time.perf_counter()
        output, _bias = self.mlp(hidden)
        synchronize(self.engine.device)
        middle = time.perf_counter()
        output.backward(self._grad_output)
        synchronize(self.engine.device)
        return middle - begin, time.perf_counter() - middle
