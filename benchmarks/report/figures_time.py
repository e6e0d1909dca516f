"""Time as stacked bars: of a run by phase, of a training step by part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.comparison.seed_groups import SeedGroup
from benchmarks.report.plotly_figure import MAX_BARS, Axis, Figure, figure
from moe.runs.run import Run
from parallel.measurement.number_text import readable

# Phases in the order of the bars, and their names in the legend.
PHASES = {
    "computing": "training steps",
    "waiting": "waiting for data",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
    "idle": "startup and shutdown",
    "redone": "repeated work",
}


@dataclass(frozen=True)
class TimeBar:
    """One bar: its label, seconds or fractions by part, and the group that it belongs to."""

    label: str
    parts: Mapping[str, float]
    group: str | None = None


def phase_seconds(run: Run) -> dict[str, float]:
    """Return seconds of a run by phase, with training split into computing and waiting for data."""
    phases = (run.record.get("energy") or {}).get("phases") or {}
    seconds = {name: float(phase["seconds"]) for name, phase in phases.items()}
    if "train" in seconds:
        training = seconds.pop("train")
        waits = [row.get("data_stall_s") or 0.0 for row in run.metrics]
        waiting = min(training, sum(waits))
        seconds |= {"computing": training - waiting, "waiting": waiting}
    return {name: seconds[name] for name in PHASES if name in seconds}


def phase_figure(groups: Sequence[SeedGroup]) -> Figure | None:
    """Return each model's time by phase (of its first run), as fractions; `None` if none is known.

    The phases are those of the energy meter.
    """
    known = [TimeBar(g.label, split, g.key) for g in groups if (split := phase_seconds(g.first))]
    caption = "Fractions of the time of each model's first run."
    if len(known) > MAX_BARS:
        caption += f" The first {MAX_BARS} of {len(known)}."
    bars = known[:MAX_BARS]
    return _stacked_bars("phases", "Time by phase", caption, bars, PHASES) if bars else None


def step_figure(splits: Mapping[str, Mapping[str, float]]) -> Figure | None:
    """Return a training step's time by part, as `moe bench step` measured it."""
    if not splits:
        return None
    bars = [TimeBar(model, parts) for model, parts in splits.items()]
    names = {part: part for parts in splits.values() for part in parts}
    caption = "By moe bench step; components are timed in separate steps, forward and backward."
    return _stacked_bars("step-split", "Time of a training step", caption, bars, names)


def _stacked_bars(
    name: str, title: str, caption: str, bars: Sequence[TimeBar], parts: Mapping[str, str]
) -> Figure:
    traces = []
    for number, (part, words) in enumerate(parts.items()):
        with_part = [bar for bar in bars if bar.parts.get(part)]
        if not with_part:
            continue
        fractions = [bar.parts[part] / sum(bar.parts.values()) for bar in with_part]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": words,
                "meta": {"part": number, "groups": [bar.group for bar in with_part]},
                "x": fractions,
                "y": [bar.label for bar in with_part],
                "customdata": [readable(fraction, "share") for fraction in fractions],
                "hovertemplate": f"<b>%{{y}}</b><br>{words}: %{{customdata}}<extra></extra>",
            }
        )
    return figure(name, title, caption, traces, x=Axis(percent=True), bars=True, stacked=True)
