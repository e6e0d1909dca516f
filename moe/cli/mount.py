"""The commands of `moe/`; heavy imports wait inside them."""

import typer

from moe.cli import convert, cost
from moe.cli.audit import audit
from moe.cli.evaluate import evaluate
from moe.cli.generate import generate


def mount(app: typer.Typer) -> None:
    """Add this room's commands to the front door."""
    cost.mount(app)
    convert.mount(app)
    app.command("eval")(evaluate)
    app.command()(audit)
    app.command()(generate)
