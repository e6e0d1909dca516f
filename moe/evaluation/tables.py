"""Tables of `moe eval` for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from moe.routing.specialization import source_load, specialization


def print_evaluation(document: Mapping[str, Any]) -> None:
    """Print the loss overall and by source."""
    title = f"{document['run_dir']}, step {document['step']}: {document['split']}"
    if document["fp8"] is not None:
        title += f", in emulated FP8 ({document['fp8']})"
    table = Table(title=title, title_justify="left")
    for name in ("source", "sequences", "tokens", "loss (nats/token)", "perplexity"):
        table.add_column(name, justify="left" if name == "source" else "right")
    for row in (*document["sources"], {**document, "source": "all"}):
        error = row["standard_error"]
        spread = "" if error is None else f" \u00b1 {error:.4f}"
        table.add_row(
            row["source"],
            f"{row['sequences']:,}",
            f"{row['tokens']:,}",
            f"{_fixed(row['loss'], 4)}{spread}",
            _fixed(row["perplexity"], 2),
        )
    console = Console()
    console.print(table)
    if document["routing"] is not None:
        console.print(_routing_table(document["routing"]))


def _fixed(number: float | None, digits: int) -> str:
    return "not a number" if number is None else f"{number:.{digits}f}"


def print_tasks(document: Mapping[str, Any]) -> None:
    """Print the metrics of lm-eval's tasks."""
    table = Table(title=f"{document['run_dir']}, step {document['step']}", title_justify="left")
    for name in ("task", "metric", "value"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for task, metrics in document["tasks"].items():
        for name, value in metrics.items():
            table.add_row(task, name, f"{value:,.4f}")
    Console().print(table)


def _routing_table(maps: Mapping[str, Any]) -> Table:
    """Return each layer's specialization, and every source's favorite experts."""
    table = Table(title="experts by source (load, times the even share)", title_justify="left")
    for name in ("layer", "specialization", *maps["sources"]):
        table.add_column(name, justify="right" if name == "specialization" else "left")
    for layer, counts in zip(maps["layers"], maps["counts"], strict=True):
        share = specialization(counts)
        favorites = [_favorites(load) for load in source_load(counts)]
        table.add_row(str(layer), "" if share is None else f"{share:.3f}", *favorites)
    return table


def _favorites(load: list[float], most: int = 3) -> str:
    best = sorted(range(len(load)), key=lambda expert: -load[expert])[:most]
    return ", ".join(f"{expert}: {load[expert]:.1f}" for expert in best)
