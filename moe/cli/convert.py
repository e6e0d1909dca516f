"""`moe convert`: models of Hugging Face and Megatron in and out, dense checkpoints to sparse."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from data.options import JsonOption

app = typer.Typer(
    help="Convert checkpoints: Hugging Face, Megatron, dense to sparse. Needs no GPU.",
    no_args_is_help=True,
)
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Directory to make.")]


def mount(parent: typer.Typer) -> None:
    """Add these commands to the front door."""
    parent.add_typer(app, name="convert")


@app.command("from-hf")
def from_hf(
    model: Annotated[
        Path, typer.Argument(help="Directory with config.json and *.safetensors.", metavar="DIR")
    ],
    out: OutOption,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint of a Hugging Face model; it loads under any layout."""
    from moe.convert.hugging_face import from_hub

    with _progress("Converting") as progress:
        done = from_hub(model, out, progress)
    _note(model, done.notes)
    _say(asdict(done), as_json)


@app.command("to-hf")
def to_hf(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint, or a run: its newest.", metavar="CKPT")
    ],
    out: OutOption,
    family: Annotated[
        str | None,
        typer.Option(help="model_type to write. Default: where it came from, or the first to fit."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Numbers to write: F32, F16 or BF16. Default: as stored.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a Hugging Face model directory of a checkpoint."""
    from moe.convert.hugging_face import to_hub

    with _progress("Converting") as progress:
        done = to_hub(checkpoint, out, family=family, dtype=dtype, progress=progress)
    _note(out, done.notes)
    _say(asdict(done), as_json)


@app.command("from-megatron")
def from_megatron(
    source: Annotated[
        Path,
        typer.Argument(help="What Megatron saved into, or one iteration's folder.", metavar="DIR"),
    ],
    out: OutOption,
    model: Annotated[
        str | None,
        typer.Option(help="Preset or FILE.toml. Default: what the checkpoint says of its model."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint of one of Megatron-LM or Megatron-Bridge (format torch_dist)."""
    from moe.convert.megatron.from_megatron import from_megatron

    with _progress("Converting") as progress:
        done = from_megatron(source, out, model=model, progress=progress)
    _note(out, done.notes)
    _say(asdict(done), as_json)


@app.command("to-megatron")
def to_megatron(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint, or a run: its newest.", metavar="CKPT")
    ],
    out: OutOption,
    dtype: Annotated[
        str | None, typer.Option(help="Numbers to write: F32, F16 or BF16. Default: as stored.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a checkpoint that Megatron-LM and Megatron-Bridge load (format torch_dist)."""
    from moe.convert.megatron.to_megatron import to_megatron

    with _progress("Converting") as progress:
        done = to_megatron(checkpoint, out, dtype=dtype, progress=progress)
    _note(out, done.notes)
    _say(asdict(done), as_json)


@app.command()
def upcycle(  # noqa: PLR0913, PLR0917 - the command's options
    source: Annotated[
        Path,
        typer.Argument(help="Dense checkpoint, run, or Hugging Face model.", metavar="SRC"),
    ],
    out: OutOption,
    experts: Annotated[int, typer.Option(help="Experts a sparse layer.", min=2)],
    top_k: Annotated[int, typer.Option(help="Experts that see one token.", min=1)],
    granularity: Annotated[
        int, typer.Option(help="Shards of the dense network, one an expert.", min=1)
    ] = 1,
    first_dense: Annotated[int, typer.Option(help="Leading layers left dense.", min=0)] = 0,
    interval: Annotated[
        int, typer.Option(help="Of the layers after those, every n-th becomes sparse.", min=1)
    ] = 1,
    noise: Annotated[
        float, typer.Option(help="Noise on experts, in the dense matrix's std.", min=0.0)
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of routers and noise.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a sparse checkpoint that begins at a dense model's loss."""
    from moe.convert.upcycle import Upcycling, upcycle
    from moe.cost.ledger import ledger

    how = Upcycling(
        num_experts=experts,
        top_k=top_k,
        granularity=granularity,
        first_dense_layers=first_dense,
        layer_interval=interval,
        noise=noise,
        seed=seed,
    )
    with _progress("Upcycling") as progress:
        made = upcycle(source, out, how, progress)
    _note(source, made.notes)
    counted = ledger(made.model, 1)
    values = {
        "path": out,
        "parameters": counted.total_parameters,
        "active_parameters": counted.active_parameters,
    }
    _say(values, as_json)


@app.command()
def reshard(
    checkpoint: Annotated[
        Path, typer.Argument(help="Run (its newest checkpoint), or a checkpoint.", metavar="CKPT")
    ],
    out: OutOption,
    ranks: Annotated[int, typer.Option(help="Ranks of the new layout.", min=1)] = 1,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="The new layout, e.g. parallel.tp=2."),
    ] = None,
    step: Annotated[int | None, typer.Option(help="Step of the checkpoint.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Cut a checkpoint's files for another layout; the optimizer's state comes along."""
    from data.dotted_keys import apply_override
    from moe.config.experiment import validated
    from moe.errors import ConfigError
    from parallel.engine.imports import import_engine
    from parallel.layout.layout import Layout

    values: dict[str, Any] = {}
    for override in overrides or ():
        apply_override(values, override)
    if others := sorted({*values} - {"parallel"}):
        raise ConfigError(f"--set {others[0]}: only the layout changes: set parallel.KEY=VALUE")
    layout = validated(Layout, values.get("parallel", {}), "--set", ("parallel",))
    import_engine()
    from moe.checkpoint.reshard import reshard

    with _progress("Resharding") as progress:
        done = reshard(checkpoint, out, layout, ranks, step=step, progress=progress)
    _say(asdict(done), as_json)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show bytes done on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _note(origin: Path, notes: tuple[str, ...]) -> None:
    """Say on stderr what was left out."""
    for note in notes:
        typer.echo(f"moe: {origin}: {note}", err=True)


def _say(values: dict[str, Any], as_json: bool) -> None:
    values = {**values, "path": str(values["path"])}
    values.pop("notes", None)
    if as_json:
        typer.echo(json.dumps(values))
        return
    facts = ", ".join(
        f"{key.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{key} {value}"
        for key, value in values.items()
        if key != "path"
    )
    typer.echo(f"{values['path']}: {facts}")
