"""Every quantity that reports compare, with its unit, origin and direction."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.comparison import machine
from benchmarks.footprint import footprint
from moe.runs.run import FLOP_BOUND, Run
from parallel.measurement.measurement import Kind, Measurement

LEDGER = "cost ledger"
CLOCK = "wall clock"
_RATE = "wall clock x cost ledger"

Getter = Callable[[Run], Measurement]
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Quantity:
    """One quantity of a run: a line of the report's tables."""

    key: str
    section: str
    label: str
    unit: str
    better: Better
    of: Getter


def _known(value: float | None, unit: str, source: str, kind: Kind) -> Measurement:
    if value is None:
        return Measurement.missing(unit, source, "not recorded by the run")
    return Measurement(value=value, unit=unit, source=source, kind=kind)


def _ledger(key: str, unit: str) -> Getter:
    return lambda run: _known(run.ledger.get(key), unit, LEDGER, "modelled")


def _clock(key: str, unit: str, source: str = CLOCK) -> Getter:
    return lambda run: _known(run.record.get(key), unit, source, "measured")


def _energy(key: str, unit: str) -> Getter:
    return lambda run: run.energy(key, unit)


def _loss(run: Run) -> Measurement:
    return _known(run.final_loss, "nats/token", "held-out evaluation", "measured")


def _training_flops(run: Run) -> Measurement:
    flops = run.training_flops(run.counts) if run.tokens else None
    return _bounded(run, _known(flops, "FLOP", LEDGER, "modelled"))


def _flops_per_token(run: Run) -> Measurement:
    return _bounded(run, _known(run.flops_per_trained_token, "FLOP/token", LEDGER, "modelled"))


def _rate(key: str, unit: str) -> Getter:
    return lambda run: _bounded(run, _clock(key, unit, _RATE)(run))


def _bounded(run: Run, flops: Measurement) -> Measurement:
    """Say of FLOPs that count whole rows for parts of them that they are an upper bound."""
    if flops.value is None or not run.has_flop_bound:
        return flops
    return replace(flops, source=f"{flops.source}, whole rows", reason=FLOP_BOUND)


def _bytes_per_active(run: Run) -> Measurement:
    """Bytes of weights in memory for each active parameter."""
    weights = run.ledger.get("bf16_weight_bytes")
    value = None if weights is None else weights / run.active_parameters
    return _known(value, "B/parameter", LEDGER, "modelled")


def _tokens(run: Run) -> Measurement:
    return _known(run.counts.get("tokens"), "tokens", "data loader", "measured")


def _device_hours(run: Run) -> Measurement:
    return _known(footprint.device_hours(run), "device-hours", CLOCK, "measured")


def _metering(run: Run) -> Measurement:
    """Fraction of training time spent on reading meters between steps."""
    overhead = (run.record.get("energy") or {}).get("overhead") or {}
    return _known(overhead.get("share_of_train_time"), "share", CLOCK, "measured")


def _useful_time(run: Run) -> Measurement:
    """Goodput: retained training steps over all allocated time (moe/runs/goodput.py)."""
    share = (run.record.get("goodput") or {}).get("useful_share_of_time")
    return _known(share, "share", CLOCK, "measured")


def _per_token(total: Getter) -> Getter:
    return lambda run: footprint.per_token(total(run), run)


def _per_nat(total: Getter) -> Getter:
    return lambda run: footprint.per_nat(total(run), run)


# Money's unit is the run's currency: it stands in each measurement.
_SPECIFICATION: tuple[tuple[str, tuple[tuple[str, str, str, Better, Getter], ...]], ...] = (
    (
        "Quality",
        (
            ("loss", "Held-out loss", "nats/token", "lower", _loss),
            ("tokens", "Tokens trained", "tokens", "neither", _tokens),
        ),
    ),
    (
        "Size",
        (
            ("total_parameters", "Total parameters", "", "neither",
             _ledger("total_parameters", "")),
            ("active_parameters", "Active parameters", "", "neither",
             _ledger("active_parameters", "")),
            ("weight_bytes", "Weights in BF16", "B", "lower", _ledger("bf16_weight_bytes", "B")),
            ("training_state_bytes", "Weights, gradients, optimizer", "B", "lower",
             _ledger("bf16_training_state_bytes", "B")),
            ("bytes_per_active", "Weight memory per active parameter", "B/parameter", "lower",
             _bytes_per_active),
        ),
    ),
    (
        "Work",
        (
            ("flops_per_token", "Training FLOPs per token", "FLOP/token", "lower",
             _flops_per_token),
            ("training_flops", "Training FLOPs", "FLOP", "lower", _training_flops),
        ),
    ),
    (
        "Speed",
        (
            ("tokens_per_s", "Throughput", "tokens/s", "higher",
             _clock("tokens_per_s", "tokens/s")),
            ("flops_per_s", "FLOP rate per device", "FLOP/s", "higher",
             _rate("flops_per_s", "FLOP/s")),
            ("mfu", "MFU", "share", "higher", lambda run: _bounded(run, machine.mfu(run))),
            ("wall_time_s", "Time in training steps", "s", "lower", _clock("wall_time_s", "s")),
            ("useful_time", "Goodput, share of allocated time", "share", "higher", _useful_time),
            ("device_hours", "Device-hours", "device-hours", "lower", _device_hours),
            ("others_share", "Processors taken by other programs", "share", "neither",
             machine.others_share),
        ),
    ),
    (
        "Energy",
        (
            ("energy_per_token", "Energy per token", "J/token", "lower",
             _energy("per_token", "J/token")),
            ("energy", "Energy of the run", "J", "lower", _energy("total", "J")),
            ("energy_per_nat", "Energy per nat learned", "J/nat", "lower",
             _per_nat(_energy("total", "J"))),
            ("mean_power", "Mean power in training", "W", "neither", _energy("mean_power", "W")),
            ("metering", "Metering, share of training time", "share", "lower", _metering),
            ("idle_power", "Idle power before", "W", "neither", _energy("idle_power", "W")),
        ),
    ),
    (
        "Carbon, water, money",
        (
            ("carbon", "Emissions of the run", "gCO2e", "lower", footprint.emissions),
            ("carbon_per_token", "Emissions per token", "gCO2e/token", "lower",
             _per_token(footprint.emissions)),
            ("carbon_per_nat", "Emissions per nat learned", "gCO2e/nat", "lower",
             _per_nat(footprint.emissions)),
            ("water", "Water", "L", "lower", footprint.water),
            ("money", "Price of the run", "", "lower", footprint.price),
            ("money_per_token", "Price per token", "", "lower", _per_token(footprint.price)),
            ("money_per_nat", "Price per nat learned", "", "lower", _per_nat(footprint.price)),
        ),
    ),
)  # fmt: skip

QUANTITIES = tuple(
    Quantity(key, section, label, unit, better, of)
    for section, lines in _SPECIFICATION
    for key, label, unit, better, of in lines
)
BY_KEY = {quantity.key: quantity for quantity in QUANTITIES}
