"""`moe cost`, `moe presets` and `moe schema`: what is known before anything runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from data.options import JsonOption


def mount(app: typer.Typer) -> None:
    """Add these commands to the front door."""
    app.command()(cost)
    app.command()(presets)
    app.command()(schema)


def cost(
    models: Annotated[
        list[str],
        typer.Argument(help="Presets, or TOML files with a [model] table.", metavar="MODEL..."),
    ],
    seq_len: Annotated[
        int, typer.Option(help="Tokens a training sequence; attention's cost depends on it.", min=1)
    ] = 4096,
    as_json: JsonOption = False,
) -> None:
    """Count parameters, FLOPs and bytes: total and active, by component."""
    from moe.config.experiment import load_model
    from moe.cost.ledger import ledger

    ledgers = {name: ledger(load_model(name), seq_len) for name in models}
    if as_json:
        documents = [{"model": name, **led.as_json()} for name, led in ledgers.items()]
        document = documents[0] if len(documents) == 1 else {"models": documents}
        typer.echo(json.dumps(document))
        return
    from rich.console import Console

    from moe.cost.tables import comparison_table, component_table, summary_line

    console = Console()
    if len(ledgers) > 1:
        console.print(comparison_table(ledgers))
        return
    for name, led in ledgers.items():
        console.print(component_table(name, led))
        console.print(summary_line(led), highlight=False)


def presets(as_json: JsonOption = False) -> None:
    """List the shipped models, with their cards' figures and sources."""
    from moe.config.presets.catalog import preset_names, read_card

    cards = {name: read_card(name) for name in preset_names()}
    if as_json:
        rows = [{"name": name, **card.model_dump(mode="json")} for name, card in cards.items()]
        typer.echo(json.dumps({"presets": rows}))
        return
    from rich.console import Console

    from moe.cost.tables import preset_table

    Console().print(preset_table(cards))


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; none: print it.")
    ] = None,
) -> None:
    """Print the JSON Schema of experiment files, for editors that complete and check TOML."""
    from data.storage.atomic import write_text
    from moe.config.schema import experiment_schema
    from moe.errors import ConfigError

    text = json.dumps(experiment_schema(), indent=1) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        write_text(out, text)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror or error}") from None
