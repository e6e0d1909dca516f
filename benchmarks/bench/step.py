"""`moe bench step`: a full training step of any model, ours and a peer's, turn by turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench.cases import Case
from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.layer_fit import fitted, free_bytes
from benchmarks.bench.memory_breakdown import memory_by_kind
from benchmarks.bench.peer_transformers import MeasuredPeer
from benchmarks.bench.session import BenchSession, bench_session, print_line, print_status
from benchmarks.bench.time_breakdown import time_split
from benchmarks.bench.trainer import (
    MeasuredTrainer,
    bench_experiment,
    bench_store,
    peak_rate,
    rank_meter,
)
from benchmarks.energy.phase_meter import PhaseMeter
from benchmarks.errors import BenchmarkError
from moe.config.experiment import Experiment, load_model
from moe.config.model import ModelConfig
from moe.config.train import TrainConfig
from moe.cost.ledger import ledger
from moe.cost.model_shape import batch_of, shape_of
from moe.training.execution_report import execution
from parallel.engine.collectives import all_gather_objects
from parallel.engine.start import Engine
from parallel.hardware.datasheet import datasheet_peak
from parallel.hardware.probe import describe_device
from parallel.layout.validation import checked_placement
from parallel.measurement.intervals import median_interval
from parallel.measurement.measurement import Measurement
from parallel.planner.memory import peak_memory


def run(
    models: Sequence[str],
    *,
    layers: int | None,
    store: Path | None,
    plan: "StepPlan",
    overrides: Sequence[str],
    out: Path | None,
) -> list[dict[str, Any]]:
    """Measure each model; returns the records (on rank 0)."""
    with bench_session(overrides) as session, bench_store(store) as text:
        cases = [step_case(name, layers, plan, text, session) for name in models]
        return session.run("step", cases, out)


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """How steps are measured."""

    seq_len: int
    micro_batch_size: int
    global_batch_size: int | None
    """`None`: one micro-batch on each data-parallel rank."""
    repeats: int
    warmup: int
    profiles: Sequence[RoutingProfile]
    peer: str | None
    """Expert implementation of the transformers peer, or no peer."""


def step_case(
    name: str, layers: int | None, plan: StepPlan, store: Path, session: BenchSession
) -> Case:
    """Return the case of one model, cut to `layers` layers where given."""
    full = load_model(name)
    model, word = fitted(
        name, full, layers, free_bytes(session.engine),
        partial(_step_bytes, plan, session), session.probe.parallel.pp,
    )  # fmt: skip
    if word is not None and session.engine.is_main:
        print_line(word)
    global_batch_size = plan.global_batch_size or plan.micro_batch_size * session.engine.dp
    key = {
        "model": name,
        "layers": model.num_layers,
        "of_layers": full.num_layers,
        "seq_len": plan.seq_len,
        "micro_batch_size": plan.micro_batch_size,
        "global_batch_size": global_batch_size,
        "routing": [str(profile) for profile in plan.profiles] if model.moe else ["dense"],
        "peer": plan.peer,
        "repeats": plan.repeats,
        **session.sections,
    }
    experiment = bench_experiment(
        model.model_dump(mode="json", exclude_none=True),
        store,
        seq_len=plan.seq_len,
        micro_batch_size=plan.micro_batch_size,
        global_batch_size=global_batch_size,
        sections=dict(session.sections),
    )
    return Case(key, partial(measure, experiment, plan, session.engine))


def _step_bytes(plan: StepPlan, session: BenchSession, model: ModelConfig) -> float:
    """Return the modelled peak of one rank; a peer beside it takes as much again."""
    train = TrainConfig(
        steps=1,
        seq_len=plan.seq_len,
        micro_batch_size=plan.micro_batch_size,
        global_batch_size=plan.global_batch_size or plan.micro_batch_size * session.engine.dp,
    )
    shape, batch = shape_of(model), batch_of(train)
    placement = checked_placement(session.probe.parallel, shape, batch, session.engine.world_size)
    ours = peak_memory(shape, placement, batch, session.probe.precision).total_bytes
    return 2.0 * ours if plan.peer else float(ours)


def measure(experiment: Experiment, plan: StepPlan, engine: Engine) -> dict[str, Any]:
    """Measure all routing profiles; within each, ours and the peer take turns, sharing drift.

    Raises:
        BenchmarkError: A peer is asked for beside several ranks of ours, or has no such model.
    """
    if plan.peer and engine.world_size > 1:
        raise BenchmarkError("--peer runs in one process: leave --nproc and layouts out")
    ours = MeasuredTrainer(experiment, engine)
    peer = MeasuredPeer(experiment, engine.device, plan.peer) if plan.peer else None
    profiles = plan.profiles if experiment.model.moe else [RoutingProfile("natural")]
    try:
        peaks = [peak_rate(engine, experiment)]
        rows = []
        for profile in profiles:
            rows.append(_measure_profile(ours, peer, profile, plan))
            peaks.append(peak_rate(engine, experiment))
        best = max(peaks, key=lambda peak: peak["flops_per_s"])
        for row in rows:
            for name in row.keys() & {"moescale", "peer"}:
                row[name] |= _rates(ours, row[name]["step_s"]["median"], best)
        ours.route(RoutingProfile("natural"))
        return {
            "parameters": ledger(experiment.model, experiment.train.seq_len).as_json(),
            "tokens_per_step": ours.tokens_per_step,
            "execution": execution(ours.trainer),
            "layout": experiment.parallel.model_dump(mode="json"),
            "routing": rows,
            "split_s": time_split(ours),
            "memory": memory_by_kind(ours),
        }
    finally:
        ours.close()


def _measure_profile(
    ours: MeasuredTrainer,
    peer: MeasuredPeer | None,
    profile: RoutingProfile,
    plan: StepPlan,
) -> dict[str, Any]:
    for subject in (ours, peer):
        if subject is not None:
            subject.route(profile)
    mine: list[float] = []
    theirs: list[float] = []
    stalls: list[float] = []
    meter = rank_meter(ours.experiment, ours.engine)
    for number in range(plan.warmup + plan.repeats):
        if ours.engine.is_main:
            print_status(f"routing {profile}: step {number + 1} of {plan.warmup + plan.repeats}")
        if number == plan.warmup:
            mine, theirs, stalls = [], [], []
        warm = number >= plan.warmup
        if meter is not None and warm:
            meter.enter("train")
        mine.append(ours.step())
        stalls.append(ours.last_stall_s)
        if peer is not None:
            # The peer's joules are not ours. Without one the counter runs through.
            if meter is not None:
                meter.enter("idle")
            theirs.append(peer.step(ours.last_batches()))
    if meter is not None:
        meter.enter("idle")
    row = {
        "routing": str(profile),
        "busiest_over_even": ours.last_load,
        "moescale": {"step_s": median_interval(mine).to_json()},
        "data_stall_share": sum(stalls) / sum(mine),
        "energy_per_token": _energy_per_token(ours, meter, plan.repeats).to_json(),
    }
    if peer is not None:
        ratio = median_interval([b / a for a, b in zip(mine, theirs, strict=True)])
        row["peer"] = {"name": peer.name, "step_s": median_interval(theirs).to_json()}
        row["speed_over_peer"] = ratio.to_json()
    return row


def _rates(ours: MeasuredTrainer, step_s: float, peak: dict[str, Any]) -> dict[str, Any]:
    """Return what follows from a step time, per device where it is a rate of FLOPs."""
    experiment, engine = ours.experiment, ours.engine
    costs = ledger(experiment.model, experiment.train.seq_len)
    tokens_per_s = ours.tokens_per_step / step_s
    flops_per_s = tokens_per_s * costs.training_flops_per_token / engine.world_size
    sheet = datasheet_peak(describe_device(engine.device).get("name"), experiment.precision.dtype)
    return {
        "tokens_per_s": tokens_per_s,
        "flops_per_s_per_device": flops_per_s,
        "mfu_of_measured_peak": flops_per_s / peak["flops_per_s"],
        "measured_peak": peak,
        "mfu_of_datasheet": flops_per_s / sheet.value if sheet.value else None,
        "datasheet_peak": sheet.to_json(),
    }


def _energy_per_token(ours: MeasuredTrainer, meter: PhaseMeter | None, steps: int) -> Measurement:
    """Return J/token over the timed steps, all ranks' devices together, each once."""
    parts = all_gather_objects(None if meter is None else meter.report())
    if any(part is None or part["lost"] for part in parts):
        return Measurement.missing("J/token", "none", "a rank has no working meter")
    assert meter is not None
    info = meter.source.info
    devices = {part["device"]: part for part in parts}
    phases = [part["phases"]["train"] for part in devices.values()]
    quanta = [part["quantum_joules"] or 0.0 for part in devices.values()]
    joules = info.origin.energy(
        sum(phase["joules"] for phase in phases),
        sum(quanta) * phases[0]["segments"],
        reason=info.note,
    )
    return joules.over(steps * ours.tokens_per_step, "J/token")
