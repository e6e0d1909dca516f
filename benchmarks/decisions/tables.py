"""Decisions for a terminal."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from benchmarks.decisions.limits import UNITS
from benchmarks.planning.limits import gibibytes
from benchmarks.text_table import TextTable
from moe.config.experiment import Experiment
from parallel.measurement.number_text import readable, significant
from parallel.measurement.units import SECONDS_PER_HOUR

UNKNOWN = "–"
SECONDS_PER_DAY = 24 * SECONDS_PER_HOUR
_UNITS = {"tokens": "tokens", "seconds": "s", "joules": "J", "gco2": "gCO2e"}
_NAMES = {
    "tokens": "tokens", "seconds": "wall time", "gpu_hours": "GPU-hours", "joules": "energy",
    "money": "money", "gco2": "emissions",
}  # fmt: skip


def decision_table(found: Mapping[str, Any]) -> TextTable:
    """Return the best model beside the runner-up, the best dense one, and what 6 N D chooses."""
    columns = ["", "best", "runner-up", "dense"]
    rows = [found, found["runner_up"], found["dense"]]
    table = TextTable(f"{found['law']} ({found['origin']})", columns)
    sizes = [None if row is None else row.get("best") or row["sizes"] for row in rows]
    for name in ("active_parameters", "parameters", "experts", "top_k", "granularity", "tokens"):
        table.add_row(name.replace("_", " "), *(_cell(size, _size(name)) for size in sizes))
    costs = [None if row is None else row["cost"] for row in rows]
    table.add_row("loss, nats per token", *(_cell(row, _loss) for row in rows))
    for name in ("seconds", "gpu_hours", "joules", "money", "gco2"):
        cells = [_amount(name, cost) for cost in costs]
        if any(cell != UNKNOWN for cell in cells):
            table.add_row(_NAMES[name], *cells)
    table.add_row("memory to serve", *(_cell(c, _served_memory) for c in costs))
    if costs[0] is not None and "layout" in costs[0]:
        table.add_row("layout", *(_cell(c, lambda c: c["layout"].replace(",", " ")) for c in costs))
        table.add_row("share of the rate", *(_cell(c, _utilisation) for c in costs))
    return table


def quantity_table(found: Mapping[str, Any]) -> TextTable:
    """Return what the chosen run comes to, with intervals and kinds."""
    table = TextTable("", ["the run", "", "80% interval", "kind"])
    currency = found["cost"]["currency"]
    for name, each in found["quantities"].items():
        if each is None:
            continue
        texts = [_text(name, each[key], currency) for key in ("value", "low", "high")]
        exact = texts[1] == texts[2]
        interval = "exact" if exact else f"{texts[1]} to {texts[2]}"
        table.add_row(_NAMES.get(name, name), texts[0], interval, each["kind"])
    return table


def decision_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the findings in sentences."""
    cost, searched = found["cost"], found["searched"]
    lines = [f"bound by {_NAMES.get(cost['bound_by'], cost['bound_by'])}; every number is modelled"]
    if cost["served_tokens"]:
        lines.append(
            f"{readable(cost['served_tokens'], 'tokens')} served over the model's life take"
            f" {cost['served_share']:.0%} of that"
        )
    if (gain := found["leverage"]) is not None:
        lines.append(_leverage_line(gain))
    lines += [one["text"] for one in found["dense_would_win"]]
    if (other := found["six_n_d"]) is not None:
        lines.append(_six_n_d_line(other, found["loss"]))
    lines.append(
        f"{searched['candidates']} models looked at, {searched['planned']} of them planned; no"
        f" other could be better by more than {searched['gain_left']:.3f} nats"
    )
    return lines


def model_line(experiment: Experiment) -> str:
    """Return the best model's own sizes and its training, of which the table has the cost."""
    model, train = experiment.model, experiment.train
    return (
        f"best: {model.num_layers} layers, {model.hidden_size:,} wide, {model.num_heads} heads;"
        f" {train.steps:,} steps of {train.global_batch_size:,} sequences of {train.seq_len:,};"
        f" peak learning rate {train.learning_rate:g}"
    )


def loss_line(found: Mapping[str, Any]) -> str:
    """Return what the interval of the loss covers, and what it does not."""
    each = found["quantities"]["loss"]
    line = f"the loss's {each['level']:.0%} interval is of {each['interval_of']}"
    if each["law_interval"] is None:
        return f"{line}; the law's own error is not known"
    low, high = each["law_interval"]
    return (
        f"{line}; by the law it is {low:.4f} to {high:.4f} ({each['law_level']:.0%}) at these"
        " tokens: the two are not combined"
    )


def date_line(found: Mapping[str, Any]) -> str:
    """Return when the run starts and ends."""
    ends = found["ends"]
    end = "beyond a century" if ends is None else _date(ends)
    return f"starts {_date(found['starts'])}, ends {end}"


def _leverage_line(gain: Mapping[str, Any]) -> str:
    side = "above" if gain["loss_difference"] >= 0 else "below"
    text = (
        f"at the same limits the best dense model's loss is {abs(gain['loss_difference']):.3f} nats"
        f" {side} the best sparse one's"
    )
    if gain["budget_factor"] is not None:
        size = readable(gain["dense_at_equal_loss"]["active_parameters"], "")
        text += (
            f"; a dense model ({size}) needs {significant(gain['budget_factor'])} times the"
            f" {UNITS[gain['limit']]} for the same loss"
        )
    return text


def _six_n_d_line(other: Mapping[str, Any], loss: float) -> str:
    size = readable(other["best"]["active_parameters"], "")
    experts = f"{other['best']['experts']:.0f} experts" if other["best"]["experts"] > 1 else "dense"
    text = f"6 N D would choose {size} active ({experts}) and expect {other['loss']:.3f}"
    if other["real_loss"] is None:
        return f"{text}; by its layout's cost it cannot be trained within the limits"
    return f"{text}; by its layout's cost it reaches {other['real_loss']:.3f}, the best {loss:.3f}"


def _cell(row: Mapping[str, Any] | None, text: Callable[[Mapping[str, Any]], str]) -> str:
    return UNKNOWN if row is None else text(row)


def _size(name: str) -> Callable[[Mapping[str, Any]], str]:
    is_large = name in ("active_parameters", "parameters", "tokens")
    return lambda sizes: readable(sizes[name], "") if is_large else f"{sizes[name]:g}"


def _loss(row: Mapping[str, Any]) -> str:
    interval = row["interval"]
    text = f"{row['loss']:.4f}"
    return text if interval is None else f"{text} ({interval[0]:.4f} to {interval[1]:.4f})"


def _amount(name: str, cost: Mapping[str, Any] | None) -> str:
    each = None if cost is None else cost.get(name)
    return UNKNOWN if each is None or cost is None else _text(name, each["value"], cost["currency"])


def _text(name: str, value: float, currency: str) -> str:
    if name == "seconds" and value >= SECONDS_PER_DAY:
        return f"{significant(value / SECONDS_PER_DAY)} days"
    if name == "money":
        return f"{value:,.2f} {currency}"
    if name == "gpu_hours":
        return f"{value:,.6g}"
    return f"{value:.4f}" if name == "loss" else readable(value, _UNITS[name])


def _served_memory(cost: Mapping[str, Any]) -> str:
    return gibibytes(cost["serving_memory_bytes"])


def _utilisation(cost: Mapping[str, Any]) -> str:
    share = cost.get("utilisation")
    return UNKNOWN if share is None else f"{share:.0%}"


def _date(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}"
