"""Energy of what a benchmark times, with the source that `[energy]` selects."""

from dataclasses import replace
from pathlib import Path

from benchmarks.energy.phases.phase_meter import PhaseMeter
from benchmarks.energy.sources.selection import select_source
from moe.config.experiment import Experiment
from moe.runs.callbacks import Phase
from moe.training.logs.callback_list import rank_context
from parallel.engine.collectives import all_gather_objects
from parallel.engine.start import Engine
from parallel.measurement.measurement import Measurement


def open_meter(experiment: Experiment, engine: Engine) -> PhaseMeter | None:
    """Open this rank's meter as `[energy]` says; `None` where none works."""
    source = select_source(experiment.energy, rank_context(engine, Path())).source
    return None if source is None else PhaseMeter(source)


def energy_per_token(meter: PhaseMeter | None, phase: Phase, tokens: int) -> Measurement:
    """Return a phase's energy, J/token, over all ranks' devices, each once (a collective).

    Args:
        meter: This rank's, after the phase.
        phase: What was timed.
        tokens: Tokens of all ranks in that phase.
    """
    return _phase_energy(meter, phase, tokens, "J/token")


def mean_power(meter: PhaseMeter | None, phase: Phase, seconds: float) -> Measurement:
    """Return a phase's mean power, W, over all ranks' devices, each once (a collective).

    Args:
        meter: This rank's, after the phase.
        phase: What was timed.
        seconds: Duration of that phase.
    """
    return _phase_energy(meter, phase, seconds, "W")


def _phase_energy(meter: PhaseMeter | None, phase: Phase, divisor: float, unit: str) -> Measurement:
    """Return a phase's energy over all ranks' devices, divided: in `unit`."""
    works = meter is not None and not meter.lost
    own = (meter.source.info.device, meter.energy(phase)) if meter and works else None
    energies = all_gather_objects(own)
    if meter is None or None in energies:
        reason = "no meter works here" if len(energies) == 1 else "a rank has no working meter"
        return Measurement.missing(unit, "none", reason)
    # A device that several ranks read counts once.
    devices: list[Measurement] = list(dict(energies).values())
    unknown = next((energy for energy in devices if energy.value is None), None)
    if unknown is not None:
        return Measurement.missing("J/token", unknown.source, unknown.reason or "not measured")
    errors = [energy.uncertainty for energy in devices]
    total = replace(
        devices[0],
        value=sum(energy.value or 0.0 for energy in devices),
        uncertainty=None if None in errors else sum(error or 0.0 for error in errors),
        reason=meter.source.info.note,
    )
    return total.over(divisor, unit)
