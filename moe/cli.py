"""The commands of `moe/`; heavy imports wait inside them."""

import typer

from moe import cli_convert, cli_cost, cli_use


def mount(app: typer.Typer) -> None:
    """Add this room's commands to the front door."""
    cli_cost.mount(app)
    cli_convert.mount(app)
    cli_use.mount(app)
