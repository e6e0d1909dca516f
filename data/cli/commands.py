"""The `moe data` commands; heavy imports wait inside them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from data.options import JsonOption

app = typer.Typer(no_args_is_help=True)

StoreArgument = Annotated[Path, typer.Argument(help="A token store.", metavar="STORE")]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="The store to write.", metavar="STORE")
]
HeldOutOption = Annotated[
    float | None,
    typer.Option(
        help="Share of documents kept for evaluation, by the hash of their text.", min=0, max=0.5
    ),
]
EosOption = Annotated[str | None, typer.Option(help="The token that ends a document.")]


@app.callback()
def _about() -> None:
    """Documents to a clean, tokenized Arrow store."""


@app.command()
def build(  # noqa: PLR0913 - a command's options
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders; text, JSON lines (.gz, .zst, .bz2), Parquet, Arrow; saved HF datasets.",
            metavar="SRC...",
        ),
    ] = None,
    *,
    out: OutOption,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of sources, weights, cleaning; instead of SRC.", metavar="FILE"
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="bytes, bpe:SIZE (trained here), a tokenizer.json or a tokenizer's folder."
            "  [default: bpe:4096]"
        ),
    ] = None,
    eos: EosOption = None,
    held_out: HeldOutOption = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column or key of the text.  [default: text]")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="What divides the documents of a text file.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any key of a recipe, such as clean.unicode=nfc."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what cannot be read, instead of counting it.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="Do only this share; then `moe data merge`.", metavar="I/N")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes.  [default: one a core]", min=1)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn documents into a token store; started again, a stopped build continues."""
    from data.build.build import build_recipe, build_shard
    from data.cli.recipe_options import command_recipe, parse_build_shard
    from data.cli.running import print_json, print_summary, print_text, running

    changes = {"tokenizer": tokenizer, "eos_token": eos, "held_out_fraction": held_out}
    source = {"text_column": text_column, "separator": separator}
    data_recipe = command_recipe(sources or [], recipe, source, changes, overrides or [])
    with running(out) as report:
        if shard is None:
            manifest = build_recipe(
                data_recipe, out, workers=workers, strict=strict, progress=report
            )
        else:
            folder = build_shard(
                data_recipe,
                out,
                parse_build_shard(shard),
                workers=workers,
                strict=strict,
                progress=report,
            )
    if shard is None:
        print_summary(out, manifest, as_json)
    elif as_json:
        print_json({"shard": str(folder)})
    else:
        print_text(f"{folder}: done; when all are: moe data merge {out}.shard-* -o {out}")


@app.command()
def merge(
    shards: Annotated[
        list[Path], typer.Argument(help="All folders of `build --shard`.", metavar="SHARD...")
    ],
    out: OutOption,
    as_json: JsonOption = False,
) -> None:
    """Make one store of all shards of a build: what one process would have made."""
    from data.build.build import merge_shards
    from data.cli.running import RESTART, print_summary, running

    with running(out, RESTART) as report:
        manifest = merge_shards(shards, out, report)
    print_summary(out, manifest, as_json)


@app.command("import")
def import_(
    pair: Annotated[
        Path, typer.Argument(help="Prefix of Megatron's .bin and .idx.", metavar="PREFIX")
    ],
    out: OutOption,
    tokenizer: Annotated[
        str, typer.Option(help="The tokenizer it was made with: bytes, a tokenizer.json, a folder.")
    ],
    eos: EosOption = None,
    held_out: HeldOutOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Make a store of Megatron's tokens, without tokenizing again."""
    from data.cli.running import RESTART, print_summary, running
    from data.store.megatron_indexed import import_indexed
    from data.tokenization.tokenizer import byte_tokenizer, local_tokenizer

    bytes_wanted = tokenizer == "bytes"
    made = byte_tokenizer(eos) if bytes_wanted else local_tokenizer(Path(tokenizer), eos)
    with running(out, RESTART) as report:
        manifest = import_indexed(pair, out, made, held_out or 0.0, report)
    print_summary(out, manifest, as_json)


@app.command()
def export(
    store: StoreArgument,
    prefix: Annotated[
        Path, typer.Argument(help="Prefix of the .bin and .idx to write.", metavar="PREFIX")
    ],
    split: Annotated[
        Literal["train", "held_out"], typer.Option(help="The split to write.")
    ] = "train",
    as_json: JsonOption = False,
) -> None:
    """Write a split as Megatron's .bin and .idx."""
    from data.cli.running import RESTART, print_json, print_text, running
    from data.store.megatron_indexed import export_indexed
    from data.store.reader import Store

    with running(prefix, RESTART) as report:
        written = export_indexed(Store.open(store), split, prefix, report)
    if as_json:
        print_json(written)
    else:
        print_text(f"{prefix}.bin, {prefix}.idx: {written['documents']:,} documents of {split}")


@app.command()
def chat(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Conversations or pairs: JSON lines (.gz, .zst, .bz2), Parquet, Arrow.",
            metavar="FILE...",
        ),
    ],
    out: OutOption,
    tokenizer: Annotated[
        str, typer.Option(help="The model's: bytes, a tokenizer.json, its folder, or a store.")
    ],
    eos: EosOption = None,
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
    """Turn chat files into a conversation store, for fine-tuning and preference tuning."""
    from data.chat.build import build_chat_store
    from data.cli.running import RESTART, print_summary, running

    with running(out, RESTART):
        manifest = build_chat_store(
            files,
            out,
            tokenizer=tokenizer,
            eos_token=eos,
            template=template,
            held_out_fraction=held_out,
            strict=strict,
        )
    print_summary(out, manifest, as_json)


@app.command()
def pack(
    store: StoreArgument,
    seq_len: Annotated[int, typer.Option(help="Tokens a sequence (train.seq_len).", min=1)],
    as_json: JsonOption = False,
) -> None:
    """Fit whole documents into sequences, for data.packing = "best_fit"; tells what it costs."""
    from data.cli.running import RESTART, print_json, print_text, running
    from data.inspection.summary import packing_text
    from data.loading.packing import pack_store
    from data.store.reader import Store

    with running(store, RESTART):
        packed = pack_store(Store.open(store), seq_len)
    if as_json:
        print_json([info.model_dump(mode="json") for info in packed])
    else:
        print_text(packing_text(packed))


@app.command()
def inspect(
    store: StoreArgument,
    html: Annotated[
        Path | None, typer.Option(help="Write it as a page with plots.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a store holds and what was left out, and why."""
    from data.cli.running import RESTART, print_summary, running
    from data.store.reader import Store

    manifest = Store.open(store).manifest
    if html is not None:
        from data.inspection.html import write_page

        with running(html, RESTART):
            write_page(store, manifest, html)
    print_summary(store, manifest, as_json, histograms=True)


@app.command()
def dropped(
    store: StoreArgument,
    reason: Annotated[str | None, typer.Option(help="Only those dropped for this.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """List the documents that were left out: file, position, reason, detail."""
    from data.cli.running import print_json, print_text
    from data.inspection.summary import dropped_documents
    from data.store.reader import Store

    found = dropped_documents(Store.open(store), reason, limit)
    if as_json:
        print_json(list(found))
        return
    for document in found:
        detail = f"\t{document['detail']}" if document["detail"] else ""
        print_text(f"{document['file']}:{document['position']}\t{document['reason']}{detail}")


@app.command()
def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Read a whole store and compare every file with its checksum."""
    from data.cli.running import print_json, print_text
    from data.errors import DataError
    from data.store.reader import Store

    opened = Store.open(store)
    faults = opened.verify()
    num_files = len(opened.manifest.files()) + 2  # and the tokenizer, and the manifest
    if as_json:
        print_json({"files": num_files, "faults": faults})
    if faults:
        raise DataError("\nmoe: ".join(faults))
    if not as_json:
        print_text(f"{store}: {num_files} files are as written")
