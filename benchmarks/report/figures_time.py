"""Where time went, as stacked bars: a run's hours by phase, a training step's by part."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.comparison.seed_groups import SeedGroup
from moe.runs.run import Run
from parallel.measurement.number_text import readable

MOST_BARS = 30
PHASES = {
    "computing": "training steps",
    "waiting": "waiting for data",
    "evaluate": "evaluation",
    "checkpoint": "checkpoints",
    "idle": "start and end",
    "redone": "work done again",
}


def phase_seconds(run: Run) -> dict[str, float]:
    """Return seconds of a run by phase, training split into computing and waiting for data, s."""
    phases = (run.record.get("energy") or {}).get("phases") or {}
    seconds = {name: float(phase["seconds"]) for name, phase in phases.items()}
    if "train" in seconds:
        training = seconds.pop("train")
        waits = [row.get("data_stall_s") or 0.0 for row in run.metrics]
        waiting = min(training, sum(waits))
        seconds |= {"computing": training - waiting, "waiting": waiting}
    return {name: seconds[name] for name in PHASES if name in seconds}


def phase_figure(groups: Sequence[SeedGroup]) -> dict[str, Any] | None:
    """Return each model's time by phase (of its first run), as shares; none where none is known."""
    known = [(group, split) for group in groups if (split := phase_seconds(group.first))]
    bars = [(group.label, split, group.key) for group, split in known[:MOST_BARS]]
    caption = "Shares of one run's time."
    if len(known) > MOST_BARS:
        caption += f" The first {MOST_BARS} of {len(known)}."
    return _stacked("phases", "Time of a run", caption, bars, PHASES) if bars else None


def step_figure(splits: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """Return a training step's time by part, as `moe bench step` measured it."""
    if not splits:
        return None
    bars = [(model, dict(parts), None) for model, parts in splits.items()]
    names = {part: part for parts in splits.values() for part in parts}
    caption = "By moe bench step: forward and backward, in steps of their own."
    return _stacked("step-split", "Time of a training step", caption, bars, names)


def _stacked(
    name: str,
    title: str,
    caption: str,
    bars: Sequence[tuple[str, Mapping[str, float], str | None]],
    parts: Mapping[str, str],
) -> dict[str, Any]:
    traces = []
    for number, (part, words) in enumerate(parts.items()):
        with_part = [(label, split, key) for label, split, key in bars if split.get(part)]
        if not with_part:
            continue
        shares = [split[part] / sum(split.values()) for _, split, _ in with_part]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": words,
                "meta": {"part": number, "groups": [key for _, _, key in with_part]},
                "x": shares,
                "y": [label for label, _, _ in with_part],
                "customdata": [readable(share, "share") for share in shares],
                "hovertemplate": f"<b>%{{y}}</b><br>{words}: %{{customdata}}<extra></extra>",
            }
        )
    return {
        "id": name,
        "title": title,
        "caption": caption,
        "x": {"title": "", "si": False, "percent": True},
        "y": {"title": "", "si": False},
        "traces": traces,
        "logs": [],
        "bars": True,
        "stacked": True,
        "front": False,
        "loglog": False,
    }
