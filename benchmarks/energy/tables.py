"""What `moe energy` prints: joules by phase, how they were metered, their uncertainty."""

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


_LABELS = {
    "per_token": "energy per trained token",
    "mean_power": "mean power in training",
    "idle_power": "idle power before the run",
}


def energy_lines(energy: Mapping[str, Any]) -> list[str]:
    """Return the meter, energy per token, power, uncertainty and limits, one line each."""
    lines = [f"meter: {', '.join(str(p) for p in _meter(energy) if p)}"]
    for key, label in _LABELS.items():
        if key in energy:
            lines.append(f"{label}: {measurement_text(Measurement.from_json(energy[key]))}")
    lines.append(_quantization(energy))
    overhead = energy.get("overhead") or {}
    fraction = overhead.get("share_of_train_time")
    if fraction is not None:
        lines.append(
            f"metering took {readable(overhead['step_seconds'], 's')} between steps:"
            f" {readable(fraction, 'share')} of training time, in {overhead['reads']} readings"
        )
    if energy.get("starts", 1) > 1:
        lines.append(f"starts: {energy['starts']}, all included")
    limit = (energy.get("total") or {}).get("reason")
    lines += [f"limit: {limit}"] if limit else []
    return lines


def _meter(energy: Mapping[str, Any]) -> list[Any]:
    return [energy.get(name) for name in ("source", "kind", "boundary", "note")]


def _quantization(energy: Mapping[str, Any]) -> str:
    """Return the quantization error that the counter's resolution leaves, in words."""
    total = Measurement.from_json(energy["total"]) if energy.get("total") else None
    if total is None or total.value is None or energy.get("kind") != "measured":
        return "quantization error: none stated; only a counter has one"
    fraction = (total.uncertainty or 0.0) / total.value if total.value else 0.0
    every = energy.get("resolution_s")
    updates = f" (the counter is updated every {significant(every)} s)" if every else ""
    return f"quantization error of the total: ± {readable(fraction, 'share')}{updates}"
