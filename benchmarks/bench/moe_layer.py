"""`moe bench layer` and `moe bench routing`: one MoE layer alone, forward and backward.

Shapes: S tokens (one sequence), H hidden.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.forced_routing import RoutingProfile, max_over_mean
from benchmarks.bench.instruments import best_rate, synchronize
from benchmarks.bench.layer_shape import LayerShape, published_layers
from benchmarks.bench.session import BenchSession, bench_session
from benchmarks.bench.trainer import measure_peak_rate
from moe.model.build import build_model
from parallel.hardware.probe import utilization
from parallel.measurement.intervals import median_interval


def run(
    bench: str,
    shapes: Sequence[LayerShape],
    profiles: Sequence[RoutingProfile],
    options: BenchOptions,
) -> list[dict[str, Any]]:
    """Measure every shape under every profile; returns the records (on rank 0)."""
    with bench_session(options) as session:
        cases = [
            Case(
                {**asdict(shape), "routing": [str(p) for p in profiles],
                 "repeats": options.repeats, **session.sections},
                partial(measure, shape, profiles, session),
            )
            for shape in shapes
        ]  # fmt: skip
        return session.run(bench, cases)


def measure(
    shape: LayerShape, profiles: Sequence[RoutingProfile], session: BenchSession
) -> dict[str, Any]:
    """Measure one shape; profiles take turns, so that drift is shared."""
    layer, options = MeasuredLayer(shape, session), session.options
    peaks = [measure_peak_rate(session.engine, session.probe)]
    times: dict[str, list[tuple[float, float]]] = {str(profile): [] for profile in profiles}
    imbalances = {}
    for number in range(options.warmup + options.repeats):
        for profile in profiles:
            layer.force_routing(profile)
            forward_backward_s = layer.forward_backward()
            imbalances[str(profile)] = layer.last_imbalance
            if number >= options.warmup:
                times[str(profile)].append(forward_backward_s)
    peaks.append(measure_peak_rate(session.engine, session.probe))
    peak = best_rate(peaks)
    rows = [_row(name, pairs, imbalances[name], shape, peak) for name, pairs in times.items()]
    base = {row["routing"]: row for row in rows}.get("forced")
    for row in rows:
        row["time_over_forced"] = None if base is None else _total_s(row) / _total_s(base)
    published = published_layers(shape)
    return {"routing": rows, "peak": peak, "parameters": layer.num_parameters,
            "published": published}  # fmt: skip


def _total_s(row: Mapping[str, Any]) -> float:
    return float(row["forward_s"]["median"] + row["backward_s"]["median"])


def _row(
    name: str,
    pairs: Sequence[tuple[float, float]],
    imbalance: float | None,
    shape: LayerShape,
    peak: Mapping[str, Any],
) -> dict[str, Any]:
    forward, backward = (median_interval([pair[i] for pair in pairs]) for i in (0, 1))
    # A backward pass takes two products where the forward pass takes one.
    rate = 3 * shape.forward_flops / (forward.median + backward.median)
    return {
        "routing": name,
        "busiest_over_even": imbalance,
        "forward_s": forward.to_json(),
        "backward_s": backward.to_json(),
        "tokens_per_s": shape.tokens / (forward.median + backward.median),
        "flops_per_s_per_device": rate,
        "share_of_measured_peak": utilization(rate, peak),
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
        self.last_imbalance: float | None = None
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

    def force_routing(self, profile: RoutingProfile) -> None:
        """Force a routing profile, with the same draw each time."""
        shape, generator = self.shape, torch.Generator().manual_seed(3 + self.engine.rank)
        experts = profile.draw_experts(shape.tokens, shape.num_experts, shape.top_k, generator)
        device = self.engine.device
        self.mlp.router.forced_experts = None if experts is None else experts.to(device)

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
