"""Fits, comparisons and predictions as tables for a terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.laws.marked_models import MarkedModel
from benchmarks.text_table import TextTable
from parallel.measurement.number_text import counted, plain_number

UNKNOWN = "-"


def fit_tables(found: Mapping[str, Any]) -> list[TextTable]:
    """Return a fit's coefficients, and its errors where it was not fitted."""
    rms = plain_number(found["residuals"]["rms_log"], 3)
    title = (
        f"{found['title']}: {found['formula']}\n{found['points']} points, loss {found['loss']},"
        f" objective {found['objective']:.6g}, rms of ln L {rms}"
    )
    table = TextTable(title, ["coefficient", "value", "95% bootstrap", "95% profile", ""])
    for name, value in found["coefficients"].items():
        mark = "not identified" if name in found["unidentified"] else ""
        profile = found["profile_intervals"].get(name)
        intervals = _interval(found["intervals"][name]), _interval(profile)
        table.add_row(name, _number(value), *intervals, mark)
    return [table, _left_out_table(found)]


def residual_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what residuals say about a law's form, in words."""
    structure = found["residuals"]["structure"]
    if not structure:
        columns = [t["column"].replace("_", " ") for t in found["residuals"]["trends"]]
        seen = f" along {', '.join(columns)}" if columns else ": too few alike points to look"
        return [f"Residuals show no structure{seen}." if columns else f"Residuals{seen}."]
    return [f"The law's form misses something: {words}." for words in structure]


def _left_out_table(found: Mapping[str, Any]) -> TextTable:
    columns = ["left out", "range", "points", "rms of ln L", "mean", "R2"]
    table = TextTable("Predicted from all other points", columns)
    for kind in ("scale", "sparsity"):
        left_out = found["extrapolation"][kind]
        if left_out is None:
            table.add_row(f"one {kind}", "too few groups or points")
            continue
        for group in left_out["groups"]:
            low, high = counted(group["low"]), counted(group["high"])
            table.add_row(
                _words(left_out["column"]),
                low if low == high else f"{low} to {high}",
                group["points"],
                _number(group["rms_log_error"]),
                _number(group["mean_log_error"]),
                _number(group["r_squared"]),
            )
    return table


def comparison_table(found: Mapping[str, Any]) -> TextTable:
    """Return laws on the same points, the best by AICc first."""
    columns = ["law", "coefficients", "rms of ln L", "AICc - best", "largest scale left out",
               "sparsest left out", "not identified"]  # fmt: skip
    table = TextTable(f"{found['points']} points, loss {found['loss']}", columns)
    for row in found["comparison"]:
        numbers = ("rms_log", "delta_aicc", "largest_scale_rms_log", "sparsest_rms_log")
        cells = [_number(row[name]) for name in numbers]
        open_ones = ", ".join(row["unidentified"]) or UNKNOWN
        table.add_row(row["law"], row["coefficients"], *cells, open_ones)
    return table


def runs_table(models: Sequence[MarkedModel]) -> TextTable:
    """Return runs with the losses that a law predicts for them."""
    columns = ["run", "measured", "predicted", "95% of fits", "error", ""]
    table = TextTable("Runs by the law, nats per token", columns)
    for model in models:
        measured = UNKNOWN if model.measured is None else _loss(model.measured)
        error = UNKNOWN if model.error is None else f"{model.error:+.2%}"
        notes = ["a run of the fit"] if model.in_fit else []
        if model.beyond:
            notes.append(f"beyond its points in {', '.join(map(_words, model.beyond))}")
        sides = _interval(model.interval, _loss)
        table.add_row(
            model.name, measured, _loss(model.predicted), sides, error,
            "; ".join(notes),
        )  # fmt: skip
    return table


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def prediction_table(found: Mapping[str, Any]) -> TextTable:
    """Return the best sizes with their intervals."""
    cost = found["cost"]
    flops = plain_number(cost["training_flops"])
    title = (
        f"{found['law']} ({found['origin']})\n{flops} training FLOPs,"
        f" modelled: {cost['convention']}"
    )
    table = TextTable(title, ["best", "value", "95% bootstrap", "95% profile"])
    for name, value in found["best"].items():
        sides = _interval(found["best_intervals"][name], counted)
        table.add_row(_words(name), counted(value), sides)
    intervals = (_interval(found[name], _loss) for name in ("interval", "profile_interval"))
    table.add_row("loss, nats per token", _loss(found["loss"]), *intervals)
    return table


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else plain_number(value)


def _interval(
    sides: Sequence[float | None] | None, text: Callable[[float], str] = plain_number
) -> str:
    if sides is None:
        return UNKNOWN
    low, high = ("open" if side is None else text(side) for side in sides)
    return f"{low} to {high}"
