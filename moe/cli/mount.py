"""The commands of `moe/`; heavy imports wait inside them."""

import typer

from moe.cli import convert, cost, evaluate


def mount(app: typer.Typer) -> None:
    """Add this room's commands to the front door."""
    cost.mount(app)
    convert.mount(app)
    evaluate.mount(app)
