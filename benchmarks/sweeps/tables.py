"""A sweep for a terminal: its points before it runs, its results after."""

import json
from collections.abc import Sequence

from benchmarks.sweeps.expansion import LIMITS, Expansion, Planned
from benchmarks.sweeps.held import MEANING
from benchmarks.sweeps.results import FINISHED, Row
from benchmarks.sweeps.speed import JOULES_BOUNDARY
from benchmarks.text_table import TextTable
from parallel.measurement.number_text import counted, plain_number, readable

MOST_ROWS = 40
UNKNOWN = "not known"
UNKNOWN_CELL = "–"


def point_table(expansion: Expansion) -> TextTable:
    """Return one line a point, at most 40: its settings, sizes, tokens and cost."""
    names = dict.fromkeys(name for one in expansion.points for name in one.point.settings)
    sizes = (
        "h x L",
        "total",
        "active",
        "tokens",
        "FLOPs",
        "learning rate",
        "batch",
        "time",
        "energy",
    )
    shown = expansion.points[:MOST_ROWS]
    title = f"Sweep {expansion.design.name}: {len(expansion.points)} runs"
    if len(shown) < len(expansion.points):
        title += f", the first {len(shown)} (--json has all)"
    table = TextTable(title, ["run", *names, *sizes])
    for one in shown:
        table.add_row(*_cells(one, list(names)))
    return table


def _cells(one: Planned, names: Sequence[str]) -> list[str]:
    point, values = one.point, one.point.as_json()
    return [
        point.run_name,
        *(_text(point.settings.get(name)) for name in names),
        f"{values['hidden_size']:.0f} x {values['num_layers']}",
        _number(values["parameters"]),
        _number(values["active_parameters"]),
        _number(values["tokens"]),
        _flops(values["flops"]),
        _number(values["learning_rate"]),
        _number(values["batch_tokens"]),
        readable(one.cost.seconds, "s"),
        readable(one.cost.joules, "J"),
    ]


def summary_lines(expansion: Expansion) -> list[str]:
    """Return what the points take together, what is held, and what was left out."""
    design = expansion.design
    units = {"money": f" {design.base.energy.currency}"}
    totals = []
    for limit in LIMITS:
        total = expansion.total(limit)
        text = _flops if limit == "flops" else _number
        value = UNKNOWN if total is None else f"{text(total)}{units.get(limit, '')}"
        totals.append(f"{limit} {value}")
    lines = [f"together: {', '.join(totals)}"]
    if expansion.speed_source:
        lines.append(
            f"hours, joules ({JOULES_BOUNDARY}) and money modelled: {expansion.speed_source}"
        )
    if expansion.reason:
        lines.append(f"not known: {expansion.reason}")
    if held := MEANING.get(design.file.kind):
        lines.append(f"{design.file.kind}: {held}{_farthest(expansion)}")
    if expansion.duplicates:
        lines.append(f"{expansion.duplicates} combinations make the run of another: each runs once")
    if expansion.illegal:
        lines.append(
            f"{len(expansion.illegal)} drawn combinations make no legal experiment and are left"
            f" out, for example {expansion.illegal[0]}"
        )
    return [*lines, *([expansion.cut] if expansion.cut else [])]


def _farthest(expansion: Expansion) -> str:
    held = [one.point.held for one in expansion.points if one.point.held]
    worst = max(held, key=lambda one: abs(one.real / one.asked - 1))
    return f"; real values are within {abs(worst.real / worst.asked - 1):.2%} of those asked for"


def result_table(rows: Sequence[Row]) -> TextTable:
    """Return the finished runs, the least loss first, at most 40."""
    done = [row for row in rows if row["status"] == FINISHED and row.get("loss") is not None]
    done.sort(key=lambda row: row["loss"])
    settings = [json.loads(row["settings"]) for row in done[:MOST_ROWS]]
    names = list(dict.fromkeys(name for one in settings for name in one))
    table = TextTable(
        f"Results: {len(done)} of {len(rows)} runs",
        ["run", *names, "loss, nats/token", "tokens", "FLOPs", "time", "energy", "energy is"],
    )
    for row, setting in zip(done, settings, strict=False):
        table.add_row(
            row["run"], *(_text(setting.get(name)) for name in names), f"{row['loss']:.4f}",
            _number(row["tokens"]), _flops(row["flops"]), readable(row["wall_seconds"], "s"),
            readable(row["energy_joules"], "J"), row["energy_kind"] or "",
        )  # fmt: skip
    return table


def _text(value: object) -> str:
    """Return a setting, exactly."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return plain_number(value, 6)
    return "" if value is None else str(value)


def _flops(value: float | None) -> str:
    return UNKNOWN_CELL if value is None else plain_number(value, 3)


def _number(value: float | None) -> str:
    return UNKNOWN_CELL if value is None else counted(value)
