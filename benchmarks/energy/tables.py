"""A run's energy in words and one table: joules by phase, how they are known, how finely."""

from collections.abc import Mapping
from typing import Any

from benchmarks.text_table import TextTable
from parallel.measurement.measurement import Measurement, measurement_text
from parallel.measurement.number_text import readable, significant


def phase_table(energy: Mapping[str, Any]) -> TextTable:
    """Return time and joules by phase, and their sum."""
    table = TextTable("", ("phase", "time", "energy", "mean power"))
    for name, phase in (energy.get("phases") or {}).items():
        joules = Measurement.from_json(phase)
        watts = joules.over(phase["seconds"], "W")
        table.add_row(
            name,
            readable(phase["seconds"], "s"),
            measurement_text(joules),
            readable(watts.value, "W"),
        )
    total = energy.get("total")
    if total:
        table.add_row("total", "", measurement_text(Measurement.from_json(total)), "")
    return table


def energy_lines(energy: Mapping[str, Any]) -> list[str]:
    """Return what else is known of a run's energy, one line each."""
    lines = [f"meter: {', '.join(str(p) for p in _meter(energy) if p)}"]
    for key, label in (("per_token", "energy a trained token"), ("mean_power", "power in training"),
                       ("idle_power", "idle power before the run")):  # fmt: skip
        if key in energy:
            lines.append(f"{label}: {measurement_text(Measurement.from_json(energy[key]))}")
    lines.append(_fineness(energy))
    overhead = energy.get("overhead") or {}
    share = overhead.get("share_of_train_time")
    if share is not None:
        lines.append(
            f"metering took {readable(overhead['step_seconds'], 's')} between steps:"
            f" {readable(share, 'share')} of training time, in {overhead['reads']} readings"
        )
    if energy.get("starts", 1) > 1:
        lines.append(f"starts: {energy['starts']}, all counted")
    limit = (energy.get("total") or {}).get("reason")
    lines += [f"limit: {limit}"] if limit else []
    return lines


def _meter(energy: Mapping[str, Any]) -> list[Any]:
    return [energy.get(name) for name in ("source", "kind", "boundary", "note")]


def _fineness(energy: Mapping[str, Any]) -> str:
    """Say what the counter's resolution leaves uncertain."""
    total = Measurement.from_json(energy["total"]) if energy.get("total") else None
    if total is None or total.value is None or energy.get("kind") != "measured":
        return "quantisation: none stated; only a counter has one"
    share = (total.uncertainty or 0.0) / total.value if total.value else 0.0
    every = energy.get("resolution_s")
    grain = f"the counter moves every {significant(every)} s" if every else "counter"
    return f"quantisation: {grain}, which leaves the total ± {readable(share, 'share')}"
