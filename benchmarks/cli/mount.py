"""The commands of `benchmarks/`; heavy imports wait inside them."""

import typer

from benchmarks.cli import bench
from benchmarks.cli.choose import choose
from benchmarks.cli.demo import demo
from benchmarks.cli.energy import energy
from benchmarks.cli.laws import fit
from benchmarks.cli.plan import plan
from benchmarks.cli.predict import predict
from benchmarks.cli.report import carbon, report
from benchmarks.cli.sweep import sweep
from benchmarks.cli.train import train


def mount(app: typer.Typer) -> None:
    """Add this room's commands to the front door."""
    app.command()(demo)
    app.command()(train)
    app.command()(plan)
    app.command()(energy)
    app.command()(report)
    app.command()(carbon)
    app.command()(sweep)
    app.command()(fit)
    app.command()(predict)
    app.command()(choose)
    app.add_typer(bench.app, name="bench")
