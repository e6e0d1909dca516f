"""Carbon, water and money of a run's joules and hours, under the assumptions in `[energy]`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.errors import BenchmarkError
from benchmarks.footprint.carbon_intensity import grid_zone
from moe.config.energy import EnergyConfig
from moe.config.explain import explain
from moe.runs.reader import UnreadableRun, read_runs_apart
from moe.runs.run import Run
from parallel.measurement.measurement import Measurement
from parallel.measurement.units import JOULES_PER_KWH, SECONDS_PER_HOUR

# Two ways to state the same thing: stating one removes the other.
_EXCLUSIVE = {"region": "carbon_intensity", "carbon_intensity": "region"}


def read_runs_under(
    run_dirs: Sequence[Path], changes: Mapping[str, Any]
) -> tuple[list[Run], list[UnreadableRun]]:
    """Read runs under changes of `[energy]`, as `with_assumptions` takes them.

    Those that cannot be read, or whose own assumptions are invalid, come apart with the reason.

    Raises:
        ConfigError: As `read_runs_apart`.
        BenchmarkError: A change is invalid, or no run has valid assumptions.
    """
    _grid_intensity(_config({k: v for k, v in changes.items() if v is not None}))
    found, unreadable = read_runs_apart(run_dirs)
    runs = []
    for run in found:
        try:
            changed = with_assumptions(run, changes)
            grid_intensity(changed)
            runs.append(changed)
        except BenchmarkError as error:
            unreadable.append(UnreadableRun(run.path, str(error)))
    if not runs:
        raise BenchmarkError(unreadable[0].reason)
    return runs, unreadable


def with_assumptions(run: Run, changes: Mapping[str, Any]) -> Run:
    """Return the run under other assumptions, keys of `[energy]`; `None` keeps the run's own.

    Raises:
        BenchmarkError: A value is out of range, or the region is not in the table.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        return run
    section = {**run.experiment.get("energy", {})}
    for name in given:
        section.pop(_EXCLUSIVE.get(name, ""), None)
    changed = replace(run, experiment={**run.experiment, "energy": {**section, **given}})
    grid_intensity(changed)
    return changed


def assumptions(run: Run) -> EnergyConfig:
    """Return the run's `[energy]` section, validated.

    Raises:
        BenchmarkError: A value is invalid; names the key.
    """
    try:
        return _config(run.experiment.get("energy") or {})
    except BenchmarkError as error:
        raise BenchmarkError(f"{run.path}: {error}") from None


def _config(section: Mapping[str, Any]) -> EnergyConfig:
    try:
        return EnergyConfig.model_validate(section)
    except ValidationError as error:
        raise BenchmarkError(explain(error, EnergyConfig, ("energy",))) from None


def grid_intensity(run: Run) -> tuple[float, str] | None:
    """Return the grid's carbon intensity, gCO2e/kWh, and its source; `None` where none is stated.

    Raises:
        BenchmarkError: The region is not in the table.
    """
    config = assumptions(run)
    try:
        return _grid_intensity(config)
    except BenchmarkError as error:
        raise BenchmarkError(f"{run.path}: {error}") from None


def _grid_intensity(config: EnergyConfig) -> tuple[float, str] | None:
    if config.carbon_intensity is not None:
        return config.carbon_intensity, f"stated {config.carbon_intensity:g} gCO2e/kWh"
    if config.region is None:
        return None
    grid = grid_zone(config.region)
    return grid.gco2e_per_kwh, grid.label


def facility_energy(run: Run) -> Measurement:
    """Return the run's energy times PUE, J: the facility's energy for it."""
    energy, pue = run.energy("total", "J"), assumptions(run).pue
    if energy.value is None or pue == 1:
        return energy
    spread = None if energy.uncertainty is None else energy.uncertainty * pue
    return replace(
        energy,
        value=energy.value * pue,
        uncertainty=spread,
        kind="modelled",
        source=f"{energy.source} x PUE {pue:g}",
        boundary="facility",
    )


def emissions(run: Run) -> Measurement:
    """Return operational emissions, gCO2e (location-based; without embodied carbon)."""
    known = grid_intensity(run)
    if known is None:
        return Measurement.missing("gCO2e", "none", "no energy.region or carbon_intensity stated")
    return _scaled(facility_energy(run), known[0] / JOULES_PER_KWH, "gCO2e", known[1])


def water(run: Run) -> Measurement:
    """Return the water used, litres."""
    litres = assumptions(run).water_litres_per_kwh
    if litres is None:
        return Measurement.missing("L", "none", "no energy.water_litres_per_kwh stated")
    return _scaled(facility_energy(run), litres / JOULES_PER_KWH, "L", f"{litres:g} L/kWh")


def price(run: Run) -> Measurement:
    """Return the price of device-hours and of electricity, as far as either is stated."""
    config = assumptions(run)
    if config.price_per_device_hour is None and config.price_per_kwh is None:
        return Measurement.missing(config.currency, "none", "no energy.price_per_... stated")
    total, sources = 0.0, []
    if config.price_per_device_hour is not None:
        hours = device_hours(run)
        if hours is None:
            return Measurement.missing(config.currency, "none", "device-hours not recorded")
        total += hours * config.price_per_device_hour
        sources.append(f"{config.price_per_device_hour:g} {config.currency}/device-hour")
    if config.price_per_kwh is not None:
        energy = facility_energy(run)
        if energy.value is None:
            return Measurement.missing(config.currency, "none", energy.reason or "")
        total += energy.value / JOULES_PER_KWH * config.price_per_kwh
        sources.append(f"{config.price_per_kwh:g} {config.currency}/kWh")
    return Measurement(
        value=total, unit=config.currency, source=" + ".join(sources), kind="modelled"
    )


def device_hours(run: Run) -> float | None:
    """Return wall time times devices, h."""
    wall_time_s = run.record.get("wall_time_s")
    ranks = (run.record.get("hardware") or {}).get("ranks")
    return None if wall_time_s is None or ranks is None else wall_time_s * ranks / SECONDS_PER_HOUR


def per_token(total: Measurement, run: Run) -> Measurement:
    """Return a run's total per token trained on."""
    return total.over(run.tokens, f"{total.unit}/token")


def per_nat(total: Measurement, run: Run) -> Measurement:
    """Return a run's total per nat that held-out loss is below uniform guessing, ln(vocabulary)."""
    unit = f"{total.unit}/nat"
    vocab_size = run.experiment.get("model", {}).get("vocab_size")
    if total.value is None:
        return Measurement.missing(unit, total.source, total.reason or "")
    if vocab_size is None or run.final_loss is None:
        return Measurement.missing(unit, total.source, "loss or vocabulary size not recorded")
    learned = log(vocab_size) - run.final_loss
    if learned <= 0:
        return Measurement.missing(unit, total.source, "the loss is no better than guessing")
    return total.over(learned, unit)


def _scaled(energy: Measurement, factor: float, unit: str, source: str) -> Measurement:
    if energy.value is None:
        return Measurement.missing(unit, "none", energy.reason or "")
    return Measurement(
        value=energy.value * factor,
        unit=unit,
        source=f"{energy.source} x {source}",
        boundary=energy.boundary,
        kind="modelled",
        uncertainty=None if energy.uncertainty is None else energy.uncertainty * factor,
    )
