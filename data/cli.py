"""The `moe data` commands; heavy imports wait inside them."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)

StoreArgument = Annotated[Path, typer.Argument(help="A token store.", metavar="STORE")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def _about() -> None:
    """Documents to a clean, tokenised Arrow store."""


@app.command()
def build(
    sources: Annotated[list[Path], typer.Argument(help="Files and folders.", metavar="SRC...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The store to write.", metavar="STORE")],
    tokenizer: Annotated[
        str, typer.Option(help="bytes, bpe:SIZE (trained here), a tokenizer.json or its folder.")
    ] = "bpe:4096",
    eos: Annotated[str | None, typer.Option(help="The token that ends a document.")] = None,
    held_out: Annotated[
        float, typer.Option(help="Share of documents kept for evaluation.", min=0, max=0.5)
    ] = 0.02,
    as_json: JsonOption = False,
) -> None:
    """Turn documents into a token store."""
    from data.build import build_store
    from data.inspect import summary, summary_text

    manifest = build_store(
        sources, out, tokenizer=tokenizer, eos_token=eos, held_out_fraction=held_out
    )
    values = summary(manifest)
    typer.echo(json.dumps(values) if as_json else summary_text(out, values))


@app.command()
def chat(
    files: Annotated[
        list[Path], typer.Argument(help="Conversations or pairs, one a line.", metavar="JSONL...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The store to write.", metavar="STORE")],
    tokenizer: Annotated[
        str, typer.Option(help="The model's: bytes, a tokenizer.json, its folder, or a store.")
    ],
    template: Annotated[
        str, typer.Option(help="plain, chatml, tokenizer (its folder's own), or a Jinja file.")
    ] = "plain",
    held_out: Annotated[
        float, typer.Option(help="Share of examples kept for evaluation.", min=0, max=0.5)
    ] = 0.02,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the first line that is no example.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn chat JSONL into a conversation store, for fine-tuning and preference tuning."""
    from data.chat import build_chat_store
    from data.inspect import summary, summary_text

    manifest = build_chat_store(
        files,
        out,
        tokenizer=tokenizer,
        template=template,
        held_out_fraction=held_out,
        strict=strict,
    )
    values = summary(manifest)
    typer.echo(json.dumps(values) if as_json else summary_text(out, values))


@app.command()
def pack(
    store: StoreArgument,
    seq_len: Annotated[int, typer.Option(help="Tokens a sequence (train.seq_len).", min=1)],
    as_json: JsonOption = False,
) -> None:
    """Fit whole documents into sequences, for data.packing = "best_fit"; tells what it costs."""
    from data.inspect import packing_text
    from data.packing import pack_store
    from data.store import Store

    packed = pack_store(Store.open(store), seq_len)
    if as_json:
        typer.echo(json.dumps([info.model_dump(mode="json") for info in packed]))
    else:
        typer.echo(packing_text(packed))


@app.command()
def inspect(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show what a store holds and what was left out, and why."""
    from data.inspect import summary, summary_text
    from data.store import Store

    values = summary(Store.open(store).manifest)
    typer.echo(json.dumps(values) if as_json else summary_text(store, values))


@app.command()
def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Read a whole store and compare every file with its checksum."""
    from data.errors import DataError
    from data.store import Store

    opened = Store.open(store)
    faults = opened.verify()
    if as_json:
        typer.echo(json.dumps({"files": len(opened.manifest.files()) + 1, "faults": faults}))
    if faults:
        raise DataError("\nmoe: ".join(faults))
    if not as_json:
        typer.echo(f"{store}: {len(opened.manifest.files()) + 1} files are as written")
