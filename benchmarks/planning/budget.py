"""A plan as a run: tokens, days, GPU-hours, joules, money and emissions, from a target or budgets.

Cards, joules and money are spent on productive steps and on what failures and checkpoints cost
(`failures.py`); lost time is taken to draw as much power as training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.footprint.carbon_intensity import grid_zone
from benchmarks.planning.failures import Reliability
from moe.config.energy import EnergyConfig
from parallel.layout.model_shape import BatchSize
from parallel.measurement.units import JOULES_PER_KWH, SECONDS_PER_HOUR
from parallel.planner.energy import Estimate
from parallel.planner.prediction import LayoutPrediction

SECONDS_PER_DAY = 86_400.0
LONGEST_DAYS = 36_500.0
"""Dates beyond a century are not told."""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run shall reach or may spend; None where nothing is said."""

    target_tokens: float | None = None
    gpu_hours: float | None = None
    joules: float | None = None
    money: float | None = None
    gco2: float | None = None
    reliability: Reliability = Reliability()

    @property
    def is_asked(self) -> bool:
        """Whether anything is said."""
        return any(value is not None for value in self.limits.values())

    @property
    def limits(self) -> dict[str, float | None]:
        """What is said, by quantity of a `RunPlan`."""
        return {
            "tokens": self.target_tokens,
            "gpu_hours": self.gpu_hours,
            "joules": self.joules,
            "money": self.money,
            "gco2": self.gco2,
        }


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run of one layout; every number is *modelled*, with its 80% interval."""

    bound_by: str
    """The target or budget that ends it: a quantity's name."""
    quantities: Mapping[str, Estimate | None]
    """`tokens`, `seconds` (wall time), `gpu_hours`, `joules` (facility), `money`, `gco2`; None
    where a price, a grid or the card's power is unknown. What ends the run is exact."""
    currency: str
    grid: str | None
    """Carbon intensity and its source."""
    started: datetime
    reliability: Mapping[str, Any]

    @property
    def ends(self) -> datetime | None:
        """When it ends; None beyond a century."""
        seconds = self.quantities["seconds"]
        if seconds is None or seconds.value > LONGEST_DAYS * SECONDS_PER_DAY:
            return None
        return self.started + timedelta(seconds=seconds.value)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "bound_by": self.bound_by,
            **{
                name: None if each is None else asdict(each)
                for name, each in self.quantities.items()
            },
            "currency": None if self.quantities["money"] is None else self.currency,
            "grid": self.grid,
            "starts": self.started.isoformat(timespec="minutes"),
            "ends": None if self.ends is None else self.ends.isoformat(timespec="minutes"),
            "failures": dict(self.reliability),
            "kind": "modelled",
        }


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one step of a job takes."""

    num_gpus: int
    tokens: int
    seconds: float
    joules: float | None
    """Of the facility; None: the card's power is unknown."""

    @classmethod
    def of(cls, one: LayoutPrediction) -> "StepCost":
        """Return that of a layout."""
        return cls(
            num_gpus=one.work.placement.num_ranks,
            tokens=one.work.batch.tokens,
            seconds=one.step_seconds,
            joules=None if one.energy is None else one.energy.facility.value,
        )


def run_plan(
    request: RunRequest, one: LayoutPrediction, energy: EnergyConfig, started: datetime | None
) -> RunPlan:
    """Return the longest run that reaches the target and stays within all budgets.

    Args:
        request: Target and budgets.
        one: The layout.
        energy: Prices, currency and grid.
        started: When it starts; None: now.

    Raises:
        BenchmarkError: A budget is in a quantity whose price, grid or power is unknown; a region is
            not in the table.
    """
    intensity, grid = _intensity(energy)
    costs = _per_token(request.reliability, StepCost.of(one), energy, intensity)
    tokens = _tokens_by_limit(request, costs)
    bound_by = min(tokens, key=lambda name: tokens[name])
    bound, errors = _known(costs, bound_by), _errors(one)
    return RunPlan(
        bound_by=bound_by,
        quantities={
            name: None if cost is None else _spent(cost, bound, errors).times(tokens[bound_by])
            for name, cost in costs.items()
        },
        currency=energy.currency,
        grid=grid,
        started=started or datetime.now(UTC),
        reliability=request.reliability.as_json(one.work.placement.num_ranks),
    )


def tokens_within(request: RunRequest, step: StepCost, energy: EnergyConfig) -> float:
    """Return the tokens of the longest run within all limits, of steps that cost so much.

    Raises:
        BenchmarkError: As `run_plan`.
    """
    costs = _per_token(request.reliability, step, energy, _intensity(energy)[0])
    return min(_tokens_by_limit(request, costs).values())


def check_whole_step(run: RunPlan, batch: BatchSize) -> None:
    """Refuse a run of less than one step.

    Raises:
        BenchmarkError: Says how many tokens it has.
    """
    tokens = run.quantities["tokens"]
    if tokens is not None and tokens.value < batch.tokens * (1 - 1e-9):
        raise BenchmarkError(
            f"a run of {tokens.value:.3g} tokens, by its {run.bound_by.replace('_', '-')}, is less"
            f" than one step of {batch.tokens:,}: ask for more, or for a smaller"
            " --global-batch-size"
        )


def check_currency(energy: EnergyConfig) -> None:
    """Refuse a command line's prices where no currency is stated: a default was not meant.

    Raises:
        BenchmarkError: Says how to state it.
    """
    if "currency" not in energy.model_fields_set:
        raise BenchmarkError("a price of no currency: give --currency, for example USD")


@dataclass(frozen=True)
class _Cost:
    """What one token costs, and with what its error grows."""

    value: float
    time: int
    """1 where it grows with the seconds of a step."""
    power: int
    """1 where it grows with what cards draw."""


_REMEDIES = {
    "joules": "--budget-joules: this card's power is unknown: add [power] to its file",
    "money": "--budget-money: no price is known: give --price (of a GPU-hour) and --currency",
    "gco2": "--budget-gco2: no grid is known: give --region or --intensity, of a card whose power"
    " is known",
}


def _spent(cost: _Cost, bound: _Cost, errors: tuple[Estimate, Estimate]) -> Estimate:
    """Return a cost with its interval, where another is exact: what both share cancels out."""
    time, power = errors
    share = _power(time, cost.time - bound.time) * _power(power, cost.power - bound.power)
    return share.times(cost.value)


def _power(factor: Estimate, exponent: int) -> Estimate:
    """Return a factor around 1 to the power of 1, 0 or -1."""
    low, high = (bound**exponent for bound in (factor.low, factor.high))
    return Estimate(value=1.0, low=min(low, high), high=max(low, high))


def _errors(one: LayoutPrediction) -> tuple[Estimate, Estimate]:
    """Return the intervals of seconds and of power, over their values."""
    low, high = (bound / one.step_seconds for bound in one.interval)
    time = Estimate(value=1.0, low=low, high=high)
    if one.energy is None:
        return time, Estimate(value=1.0, low=1.0, high=1.0)
    facility = one.energy.facility
    return time, facility.times(1 / facility.value)


def _known(costs: Mapping[str, _Cost | None], name: str) -> _Cost:
    """Return a cost that a budget is given for.

    Raises:
        BenchmarkError: It is unknown, or nothing.
    """
    cost = costs[name]
    if cost is None:
        raise BenchmarkError(_REMEDIES[name])
    if not cost.value:
        raise BenchmarkError(f"a budget of {name} never ends where a token costs none: remove it")
    return cost


def _tokens_by_limit(request: RunRequest, costs: Mapping[str, _Cost | None]) -> dict[str, float]:
    """Return the tokens that each limit pays for."""
    return {
        name: limit / _known(costs, name).value
        for name, limit in request.limits.items()
        if limit is not None
    }


def _per_token(
    reliability: Reliability, step: StepCost, energy: EnergyConfig, intensity: float | None
) -> dict[str, _Cost | None]:
    """Return what one token costs, failures counted."""
    overhead = reliability.overhead(step.num_gpus)
    seconds = step.seconds * overhead / step.tokens
    gpu_hours = seconds * step.num_gpus / SECONDS_PER_HOUR
    joules = None if step.joules is None else step.joules / step.tokens * overhead
    kwh = None if joules is None else joules / JOULES_PER_KWH
    return {
        "tokens": _Cost(1.0, 0, 0),
        "seconds": _Cost(seconds, 1, 0),
        "gpu_hours": _Cost(gpu_hours, 1, 0),
        "joules": None if joules is None else _Cost(joules, 1, 1),
        "money": _money(gpu_hours, kwh, energy),
        "gco2": None if kwh is None or intensity is None else _Cost(kwh * intensity, 1, 1),
    }


def _money(gpu_hours: float, kwh: float | None, energy: EnergyConfig) -> _Cost | None:
    """Return the price of hours and of power, as far as they are paid."""
    hour, unit = energy.price_per_device_hour, energy.price_per_kwh
    if unit is None:
        return None if hour is None else _Cost(gpu_hours * hour, 1, 0)
    return None if kwh is None else _Cost(gpu_hours * (hour or 0.0) + kwh * unit, 1, 1)


def _intensity(energy: EnergyConfig) -> tuple[float | None, str | None]:
    """Return the grid's carbon intensity, gCO2e/kWh, and its source."""
    if energy.carbon_intensity is not None:
        return energy.carbon_intensity, f"{energy.carbon_intensity:g} gCO2e/kWh (as stated)"
    if energy.region is None:
        return None, None
    zone = grid_zone(energy.region)
    return zone.gco2e_per_kwh, zone.label
