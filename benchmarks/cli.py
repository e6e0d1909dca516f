"""The commands of `benchmarks/`; heavy imports wait inside them."""

import typer

from benchmarks import cli_bench
from benchmarks.cli_demo import demo
from benchmarks.cli_energy import energy
from benchmarks.cli_report import carbon, report
from benchmarks.cli_train import train


def mount(app: typer.Typer) -> None:
    """Add this room's commands to the front door."""
    app.command()(demo)
    app.command()(train)
    app.command()(energy)
    app.command()(report)
    app.command()(carbon)
    app.add_typer(cli_bench.app, name="bench")
