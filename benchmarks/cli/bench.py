"""`moe bench`: what training, routing, inference and input really cost on this machine."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from data.options import JsonOption

app = typer.Typer(
    help="Measure steps, layers, inference, routing, loading, checkpoints and collectives.",
    no_args_is_help=True,
)
Repeats = Annotated[int, typer.Option(help="Timed repeats.", min=1)]
Warmup = Annotated[int, typer.Option(help="Repeats before, not counted.", min=0)]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Keep results (JSON lines); resumable."),
]
Nproc = Annotated[int, typer.Option(help="Processes on this machine.", min=1)]
Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Presets or TOML files.")]
Layers = Annotated[
    int | None, typer.Option(help="Keep only the first layers, so that it fits.", min=1)
]
Hidden = Annotated[int, typer.Option(help="Hidden size.", min=1)]
ExpertFfn = Annotated[int, typer.Option(help="Inner size of one expert.", min=1)]
Routing = Annotated[
    list[str] | None,
    typer.Option(help="natural, forced, zipf:S or hot:SHARE; may be given several times."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override parallel., precision., energy. keys."
    ),
]


@app.command()
def step(  # noqa: PLR0913 - a command's options
    models: Models,
    *,
    layers: Layers = None,
    seq_len: Annotated[int, typer.Option(help="Tokens a sequence.", min=1)] = 256,
    micro_batch: Annotated[int, typer.Option(help="Sequences of a forward pass.", min=1)] = 4,
    global_batch: Annotated[
        int | None, typer.Option(help="Sequences of a step.  [default: one micro-batch a rank]")
    ] = None,
    routing: Routing = None,
    peer: Annotated[
        str | None,
        typer.Option(help="Run Hugging Face's model beside: transformers[:experts]."),
    ] = None,
    nproc: Nproc = 1,
    store: Annotated[
        Path | None, typer.Option(help="Token store.  [default: Python's library as bytes]")
    ] = None,
    repeats: Repeats = 11,
    warmup: Warmup = 3,
    overrides: Overrides = None,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a full training step: speed, memory by kind, and where the time goes."""
    if _relaunched(nproc):
        return
    _quieten()
    from benchmarks.bench import step, tables
    from benchmarks.bench.forced_routing import parse_profile
    from benchmarks.bench.peer_transformers import parse_peer

    plan = step.StepPlan(
        seq_len=seq_len,
        micro_batch_size=micro_batch,
        global_batch_size=global_batch,
        repeats=repeats,
        warmup=warmup,
        profiles=[parse_profile(text) for text in routing or ("natural", "forced")],
        peer=parse_peer(peer),
    )
    records = step.run(
        models, layers=layers, store=store, plan=plan, overrides=overrides or [], out=out
    )
    _print(records, tables.step_tables, as_json)


@app.command()
def layer(  # noqa: PLR0913 - a command's options
    *,
    shape: Annotated[str | None, typer.Option(help="Published shape: mixtral or deepseek.")] = None,
    shrink: Annotated[int, typer.Option(help="Divide a published shape's widths.", min=1)] = 1,
    hidden: Hidden = 512,
    ffn: ExpertFfn = 512,
    tokens: Annotated[list[int] | None, typer.Option(help="Tokens; several.")] = None,
    experts: Annotated[list[int] | None, typer.Option(help="Experts; several.")] = None,
    top_k: Annotated[list[int] | None, typer.Option(help="Experts a token; several.")] = None,
    granularity: Annotated[
        list[int] | None, typer.Option(help="Cut each expert into this many; several.")
    ] = None,
    routing: Routing = None,
    repeats: Repeats = 11,
    warmup: Warmup = 3,
    overrides: Overrides = None,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure an MoE layer alone, forward and backward, over tokens, experts and top-k."""
    _quieten()
    from benchmarks.bench import layer_shape, moe_layer, tables
    from benchmarks.bench.forced_routing import parse_profile

    base = layer_shape.LayerShape(
        hidden_size=hidden, expert_ffn_hidden_size=ffn, num_experts=8, top_k=2, tokens=1024
    )
    if shape is not None:
        base = layer_shape.published_shape(shape, shrink)
    records = moe_layer.run(
        "layer",
        layer_shape.layer_shapes(base, tokens or [], experts or [], top_k or [], granularity or []),
        [parse_profile(text) for text in routing or ("natural", "forced")],
        repeats=repeats,
        warmup=warmup,
        overrides=overrides or [],
        out=out,
    )
    _print(records, tables.layer_tables, as_json)


@app.command()
def routing(  # noqa: PLR0913 - a command's options
    *,
    hidden: Hidden = 512,
    ffn: ExpertFfn = 512,
    tokens: Annotated[int, typer.Option(help="Tokens.", min=1)] = 1024,
    experts: Annotated[int, typer.Option(help="Experts.", min=2)] = 16,
    top_k: Annotated[int, typer.Option(help="Experts a token.", min=1)] = 2,
    profile: Annotated[
        list[str] | None,
        typer.Option("--routing", help="Profiles.  [default: natural forced zipf:1 hot:0.5 hot:1]"),
    ] = None,
    repeats: Repeats = 11,
    warmup: Warmup = 3,
    overrides: Overrides = None,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what an imbalance costs: one layer under even, Zipf and hot-expert routing."""
    _quieten()
    from benchmarks.bench import layer_shape, moe_layer, tables
    from benchmarks.bench.forced_routing import parse_profile

    shape = layer_shape.LayerShape(
        hidden_size=hidden,
        expert_ffn_hidden_size=ffn,
        num_experts=experts,
        top_k=top_k,
        tokens=tokens,
    )
    wanted = profile or ["natural", "forced", "zipf:1", "hot:0.5", "hot:1"]
    records = moe_layer.run(
        "routing",
        layer_shape.layer_shapes(shape, [], [], [], []),
        [parse_profile(text) for text in wanted],
        repeats=repeats,
        warmup=warmup,
        overrides=overrides or [],
        out=out,
    )
    _print(records, tables.layer_tables, as_json)


@app.command()
def inference(  # noqa: PLR0913 - a command's options
    models: Models,
    *,
    layers: Layers = None,
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt.", min=1)] = 128,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=2)] = 32,
    batch: Annotated[int, typer.Option(help="Prompts at once.", min=1)] = 4,
    repeats: Repeats = 7,
    warmup: Warmup = 2,
    overrides: Overrides = None,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure prefill and decode beside dense models of equal active and equal total size."""
    _quieten()
    from benchmarks.bench import inference, tables

    plan = inference.InferencePlan(
        prompt_len=prompt, new_tokens=new_tokens, batch_size=batch, repeats=repeats, warmup=warmup
    )
    records = inference.run(models, layers=layers, plan=plan, overrides=overrides or [], out=out)
    _print(records, tables.inference_tables, as_json)


@app.command()
def loader(  # noqa: PLR0913 - a command's options
    *,
    store: Annotated[Path | None, typer.Option(help="Token store.  [default: synthetic]")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of the synthetic store.", min=1)] = 64_000_000,
    seq_len: Annotated[int, typer.Option(help="Tokens a sample.", min=1)] = 2048,
    samples: Annotated[int, typer.Option(help="Samples of one repeat.", min=1)] = 2000,
    order_samples: Annotated[
        int, typer.Option(help="Samples of the epoch whose order is timed.", min=1)
    ] = 100_000_000,
    corpus_tokens: Annotated[
        int, typer.Option(help="Tokens of the corpus whose first batch is timed.", min=1)
    ] = 1_000_000_000_000,
    repeats: Repeats = 11,
    warmup: Warmup = 2,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure reading of samples beside other libraries, starts, and stream hashes."""
    _quieten()
    from benchmarks.bench_data import loader
    from benchmarks.bench_data.loader_tables import loader_tables

    plan = loader.LoaderPlan(
        seq_len=seq_len,
        num_tokens=tokens,
        samples=samples,
        repeats=repeats,
        warmup=warmup,
        order_samples=order_samples,
        corpus_tokens=corpus_tokens,
    )
    _print(loader.run(store, plan, out), loader_tables, as_json)


@app.command()
def build(  # noqa: PLR0913 - a command's options
    text: Annotated[
        list[Path] | None,
        typer.Argument(help="Files and folders.  [default: installed packages]", metavar="SRC..."),
    ] = None,
    *,
    megabytes: Annotated[float, typer.Option(help="Text to tokenise, MB.", min=0.1)] = 64.0,
    vocab_size: Annotated[int, typer.Option(help="Ids of the BPE trained here.", min=300)] = 16384,
    workers: Annotated[int | None, typer.Option(help="Processes.  [default: cores]", min=1)] = None,
    repeats: Repeats = 5,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure building of a store beside datasets.map and Megatron's preprocessing."""
    _quieten()
    from benchmarks.bench_data import build
    from benchmarks.bench_data.build_tables import build_tables

    plan = build.default_plan(megabytes, vocab_size, workers, repeats)
    _print(build.run(text or [], plan, out), build_tables, as_json)


@app.command()
def checkpoint(  # noqa: PLR0913 - a command's options
    models: Models,
    *,
    layers: Layers = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write.  [default: temporary directory]")
    ] = None,
    nproc: Nproc = 1,
    repeats: Repeats = 6,
    warmup: Warmup = 1,
    overrides: Overrides = None,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure saving and loading of a whole training state."""
    if _relaunched(nproc):
        return
    _quieten()
    from benchmarks.bench import checkpoint, tables

    records = checkpoint.run(
        models,
        layers=layers,
        folder=folder,
        repeats=repeats,
        warmup=warmup,
        overrides=overrides or [],
        out=out,
    )
    _print(records, tables.checkpoint_tables, as_json)


@app.command()
def collectives(
    *,
    size: Annotated[
        list[int] | None, typer.Option(help="Bytes.  [default: 64 KiB, 1 MiB, 16 MiB]")
    ] = None,
    nproc: Nproc = 1,
    repeats: Repeats = 11,
    warmup: Warmup = 3,
    overrides: Overrides = None,
    out: Out = None,
    as_json: JsonOption = False,
) -> None:
    """Measure collective operations between ranks, by size."""
    if _relaunched(nproc):
        return
    _quieten()
    from benchmarks.bench import collectives, tables

    records = collectives.run(
        size or [2**16, 2**20, 2**24],
        repeats=repeats,
        warmup=warmup,
        overrides=overrides or [],
        out=out,
    )
    _print(records, tables.collective_tables, as_json)


def _relaunched(nproc: int) -> bool:
    """Run this very command as `nproc` ranks; says whether that was done."""
    import os

    if nproc == 1 or "RANK" in os.environ:
        return False
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from parallel.engine.launch import launch_ranks

    try:
        launch_ranks(["-m", "moescale", *sys.argv[1:]], nproc)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        # The rank has said what is wrong.
        raise typer.Exit(2 if 2 in codes else 1) from None
    return True


def _quieten() -> None:
    """Silence the engine's import; the records say which kernels ran."""
    from parallel.engine.start import quieten_engine

    quieten_engine()


def _print(records: list[dict[str, Any]], table: Any, as_json: bool) -> None:
    """Print records of rank 0 as JSON or as a table; other ranks give none."""
    if not records:
        return
    if as_json:
        typer.echo(json.dumps(records))
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 150)
    for part in table(records):
        console.print(part)
