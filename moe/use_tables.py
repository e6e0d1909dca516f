"""Tables of `moe eval` for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def print_evaluation(document: Mapping[str, Any]) -> None:
    """Print the loss as a whole and by source."""
    title = f"{document['run_dir']}, step {document['step']}: {document['split']}"
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
            f"{row['loss']:.4f}{spread}",
            f"{row['perplexity']:.2f}",
        )
    Console().print(table)
