"""`moe demo`."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

STEPS = 300


def demo(
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text", help="Folder or file to learn from.  [default: Python's own library]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where everything is written.")] = Path(
        "demo"
    ),
    steps: Annotated[int, typer.Option(help="Optimizer steps of each model.", min=10)] = STEPS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Train a dense and a sparse model on real text here, measure and compare them."""
    from benchmarks.demo import run_demo

    result = run_demo(text or [], out, steps=steps, print_line=partial(typer.echo, err=True))
    if as_json:
        content = json.loads(result.report.json.read_text(encoding="utf-8"))
        typer.echo(json.dumps(content))
        return
    typer.echo(f"\n{result.finding}\n")
    typer.echo(f"report: {result.report.html.resolve()}")
