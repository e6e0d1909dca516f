"""`moe bench step`: a full training step of any model, ours and a peer's, turn by turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.device_kernels import longest_kernels
from benchmarks.bench.floor.measure import measure_floor
from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.instruments import best_rate
from benchmarks.bench.layer_fit import load_fitting_model
from benchmarks.bench.memory_breakdown import memory_breakdown
from benchmarks.bench.metering import energy_per_token, open_meter
from benchmarks.bench.natural.step_routing import NaturalPlan, StepRouting, natural_last
from benchmarks.bench.peer_transformers import MeasuredPeer
from benchmarks.bench.session import BenchSession, bench_session, print_status
from benchmarks.bench.time_breakdown import time_breakdown
from benchmarks.bench.trainer import (
    MeasuredTrainer,
    bench_experiment,
    bench_store,
    measure_peak_rate,
)
from benchmarks.energy.phases.phase_meter import PhaseMeter
from benchmarks.errors import BenchmarkError
from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from moe.config.train import TrainConfig
from moe.cost.ledger import ledger
from moe.cost.model_shape import batch_of, shape_of
from parallel.hardware.datasheet import datasheet_peak
from parallel.hardware.probe import describe_device, utilization
from parallel.layout.validation import checked_placement
from parallel.measurement.intervals import median_interval
from parallel.planner.memory import peak_memory
from parallel.planner.workload import Workload


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """Which steps are measured."""

    seq_len: int
    micro_batch_size: int
    global_batch_size: int | None
    """`None`: one micro-batch on each data-parallel rank."""
    profiles: Sequence[RoutingProfile]
    natural: NaturalPlan
    """Where natural routing comes from."""
    peer: str | None
    """Expert implementation of the transformers peer, or no peer."""


@dataclass
class _Timings:
    """Durations of timed steps, s."""

    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    """Part of `ours` spent waiting for data."""


def run(
    models: Sequence[str],
    layers: int | None,
    store: Path | None,
    plan: StepPlan,
    options: BenchOptions,
) -> list[dict[str, Any]]:
    """Measure each model, cut to `layers` layers if given; returns the records (on rank 0)."""
    with bench_session(options) as session, bench_store(store) as text:
        cases = [_step_case(name, layers, plan, text, session) for name in models]
        return session.run("step", cases)


def _step_case(
    name: str, layers: int | None, plan: StepPlan, store: Path, session: BenchSession
) -> Case:
    model, key = load_fitting_model(
        name, layers, session, partial(_step_bytes, plan, session), session.probe.parallel.pp
    )
    global_batch_size = plan.global_batch_size or plan.micro_batch_size * session.engine.dp
    key |= {
        "seq_len": plan.seq_len,
        "micro_batch_size": plan.micro_batch_size,
        "global_batch_size": global_batch_size,
        "routing": [str(profile) for profile in _profiles(plan, model)],
        **plan.natural.key(),
        "peer": plan.peer,
        "repeats": session.options.repeats,
        **session.sections,
    }
    if plan.natural.replay is not None and model.moe is not None:
        plan.natural.replay.check_fits(model.moe.num_experts, model.moe.top_k)
    experiment = bench_experiment(
        model.model_dump(mode="json", exclude_none=True),
        store,
        seq_len=plan.seq_len,
        micro_batch_size=plan.micro_batch_size,
        global_batch_size=global_batch_size,
        sections=dict(session.sections),
    )
    return Case(key, partial(measure, experiment, plan, session))


def _profiles(plan: StepPlan, model: ModelConfig) -> list[RoutingProfile]:
    """Return the profiles that are measured, each once."""
    return list(dict.fromkeys(plan.profiles)) if model.moe else [RoutingProfile("dense")]


def _step_bytes(plan: StepPlan, session: BenchSession, model: ModelConfig) -> float:
    """Return the modelled peak of one rank, bytes; a peer beside it needs as much again."""
    train = TrainConfig(
        steps=1,
        seq_len=plan.seq_len,
        micro_batch_size=plan.micro_batch_size,
        global_batch_size=plan.global_batch_size or plan.micro_batch_size * session.engine.dp,
    )
    shape, batch = shape_of(model), batch_of(train)
    placement = checked_placement(session.probe.parallel, shape, batch, session.engine.world_size)
    work = Workload(
        shape=shape, placement=placement, batch=batch, precision=session.probe.precision
    )
    ours = peak_memory(work).total_bytes
    return 2.0 * ours if plan.peer else float(ours)


def measure(experiment: Experiment, plan: StepPlan, session: BenchSession) -> dict[str, Any]:
    """Measure all routing profiles; within each, ours and the peer take turns, sharing drift.

    Raises:
        BenchmarkError: A peer is asked for beside several ranks of ours, or has no such model.
    """
    engine = session.engine
    if plan.peer and engine.world_size > 1:
        raise BenchmarkError("--peer runs in one process: leave --nproc and layouts out")
    ours = MeasuredTrainer(experiment, engine)
    peer = MeasuredPeer(experiment, engine.device, plan.peer) if plan.peer else None
    routing = StepRouting(ours, plan.natural)
    profiles = _profiles(plan, experiment.model)
    try:
        peaks = [measure_peak_rate(engine, experiment)]
        by_profile = {}
        for profile in natural_last(profiles):
            routing.force(profile)
            by_profile[profile] = _measure_profile(ours, peer, profile, session.options)
            by_profile[profile]["routing_source"] = routing.source(profile)
            by_profile[profile]["floor"] = measure_floor(ours, session.options)
            peaks.append(measure_peak_rate(engine, experiment))
        peak, rows = best_rate(peaks), [by_profile[profile] for profile in profiles]
        cost = routing.cost_over_forced(profiles, session.options)
        for row in rows:
            for name in row.keys() & {"moescale", "peer"}:
                row[name] |= _rates(ours, row[name]["step_s"]["median"], peak)
        shown = natural_last(profiles)[-1]
        routing.force(shown)
        return {
            "parameters": ledger(experiment.model, experiment.train.seq_len).as_json(),
            "tokens_per_step": ours.tokens_per_step,
            "execution": ours.execution,
            "layout": experiment.parallel.model_dump(mode="json"),
            "routing": rows,
            "routing_cost": cost,
            "split_routing": str(shown),
            "split_s": time_breakdown(ours),
            "memory": memory_breakdown(ours),
            "longest_kernels": longest_kernels(ours),
        }
    finally:
        ours.close()


def _measure_profile(
    ours: MeasuredTrainer, peer: MeasuredPeer | None, profile: RoutingProfile, options: BenchOptions
) -> dict[str, Any]:
    """Time the steps of both under one profile; returns its row of the result."""
    ours.keeps_decisions = peer is not None
    meter = open_meter(ours.experiment, ours.engine)
    timings = _Timings()
    for number in range(options.warmup + options.repeats):
        if ours.engine.is_main:
            total = options.warmup + options.repeats
            print_status(f"routing {profile}: step {number + 1} of {total}")
        if number == options.warmup:
            timings = _Timings()
        _time_step(ours, peer, meter if number >= options.warmup else None, timings)
    if meter is not None:
        meter.enter("idle")
    tokens = options.repeats * ours.tokens_per_step
    row = {
        "routing": str(profile),
        "busiest_over_even": ours.last_imbalance,
        "moescale": {"step_s": median_interval(timings.ours).to_json()},
        "data_stall_share": sum(timings.stalls) / sum(timings.ours),
        "energy_per_token": energy_per_token(meter, "train", tokens).to_json(),
    }
    if peer is not None:
        ratios = [b / a for a, b in zip(timings.ours, timings.peer, strict=True)]
        row["peer"] = {"name": peer.name, "step_s": median_interval(timings.peer).to_json()}
        row["speed_over_peer"] = median_interval(ratios).to_json()
    return row


def _time_step(
    ours: MeasuredTrainer, peer: MeasuredPeer | None, meter: PhaseMeter | None, timings: _Timings
) -> None:
    if meter is not None:
        meter.enter("train")
    timings.ours.append(ours.step())
    timings.stalls.append(ours.last_stall_s)
    if peer is not None:
        # The peer's joules are not ours. Without a peer the phase runs on over all steps.
        if meter is not None:
            meter.enter("idle")
        timings.peer.append(peer.step(ours.last_batches(), ours.last_decisions))


def _rates(ours: MeasuredTrainer, step_s: float, peak: dict[str, Any]) -> dict[str, Any]:
    """Return what follows from a step time; rates of FLOPs are per device."""
    experiment, engine = ours.experiment, ours.engine
    costs = ledger(experiment.model, experiment.train.seq_len)
    tokens_per_s = ours.tokens_per_step / step_s
    flops_per_s = tokens_per_s * costs.training_flops_per_token / engine.world_size
    sheet = datasheet_peak(describe_device(engine.device).get("name"), experiment.precision.dtype)
    return {
        "tokens_per_s": tokens_per_s,
        "flops_per_s_per_device": flops_per_s,
        "mfu_of_measured_peak": utilization(flops_per_s, peak),
        "measured_peak": peak,
        "mfu_of_datasheet": flops_per_s / sheet.value if sheet.value else None,
        "datasheet_peak": sheet.to_json(),
    }
