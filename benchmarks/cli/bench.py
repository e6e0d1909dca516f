"""`moe bench`: what training, routing, inference and input really cost on this machine.

Each function runs one benchmark and returns its records; `bench_command` adds the options of every
benchmark, starts `nproc` ranks and prints the records.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.cli.bench_kernels import attention, gemm
from benchmarks.cli.options import (
    ExpertSizeOption,
    HiddenSizeOption,
    LayersOption,
    ModelsArgument,
    NprocOption,
    Records,
    ReplayOption,
    RoutingOption,
    bench_command,
)

if TYPE_CHECKING:
    from benchmarks.bench.cases import BenchOptions
    from benchmarks.bench.layer_shape import LayerShape

app = typer.Typer(
    help="Measure steps, layers, kernels, inference, loading, checkpoints and collectives.",
    no_args_is_help=True,
)
app.command()(gemm)
app.command()(attention)
DEFAULT_PROFILES = ("natural", "forced")
# `moe bench routing`: from even to all tokens at one expert.
IMBALANCES = ("zipf:1", "hot:0.5", "hot:1")
COLLECTIVE_SIZES = (2**16, 2**20, 2**24)


@app.command()
@bench_command(repeats=11, warmup=3, runs_model=True)
def step(  # noqa: PLR0913 - a command's options
    models: ModelsArgument,
    *,
    layers: LayersOption = None,
    seq_len: Annotated[int, typer.Option(help="Tokens a sequence.", min=1)] = 256,
    micro_batch: Annotated[int, typer.Option(help="Sequences of a forward pass.", min=1)] = 4,
    global_batch: Annotated[
        int | None, typer.Option(help="Sequences of a step.  [default: one micro-batch a rank]")
    ] = None,
    routing: RoutingOption = None,
    replay: ReplayOption = None,
    settle_steps: Annotated[
        int,
        typer.Option(help="Most steps of a warm-up to natural routing, without --replay.", min=1),
    ] = 700,
    peer: Annotated[
        str | None,
        typer.Option(help="Run Hugging Face's model beside: transformers[:experts]."),
    ] = None,
    nproc: NprocOption = 1,
    store: Annotated[
        Path | None, typer.Option(help="Token store.  [default: Python's library as bytes]")
    ] = None,
    options: "BenchOptions",
) -> Records:
    """Measure a full training step: speed, memory by kind, and where the time goes."""
    from benchmarks.bench import step
    from benchmarks.bench.forced_routing import parse_profile
    from benchmarks.bench.natural.replay import open_replay
    from benchmarks.bench.natural.step_routing import natural_plan
    from benchmarks.bench.peer_transformers import parse_peer

    profiles = [parse_profile(text) for text in routing or DEFAULT_PROFILES]
    plan = step.StepPlan(
        seq_len=seq_len,
        micro_batch_size=micro_batch,
        global_batch_size=global_batch,
        profiles=profiles,
        natural=natural_plan(open_replay(replay), profiles, settle_steps, store),
        peer=parse_peer(peer),
    )
    return step.run(models, layers, store, plan, options)


@app.command()
@bench_command(repeats=11, warmup=3, runs_model=True)
def layer(  # noqa: PLR0913 - a command's options
    *,
    shape: Annotated[str | None, typer.Option(help="Published shape: mixtral or deepseek.")] = None,
    shrink: Annotated[int, typer.Option(help="Divide a published shape's widths.", min=1)] = 1,
    hidden: HiddenSizeOption = 512,
    ffn: ExpertSizeOption = 512,
    tokens: Annotated[list[int] | None, typer.Option(help="Tokens; several.")] = None,
    experts: Annotated[list[int] | None, typer.Option(help="Experts; several.")] = None,
    top_k: Annotated[list[int] | None, typer.Option(help="Experts a token; several.")] = None,
    granularity: Annotated[
        list[int] | None, typer.Option(help="Cut each expert into this many; several.")
    ] = None,
    routing: RoutingOption = None,
    replay: ReplayOption = None,
    options: "BenchOptions",
) -> Records:
    """Measure an MoE layer alone, forward and backward, over tokens, experts and top-k."""
    from benchmarks.bench import layer_shape

    base = layer_shape.LayerShape(
        hidden_size=hidden, expert_ffn_hidden_size=ffn, num_experts=8, top_k=2, tokens=1024
    )
    if shape is not None:
        base = layer_shape.published_shape(shape, shrink)
    shapes = layer_shape.layer_shapes(
        base, tokens or [], experts or [], top_k or [], granularity or []
    )
    return _measure_layers("layer", shapes, routing, replay, options)


@app.command()
@bench_command(repeats=11, warmup=3, runs_model=True)
def routing(  # noqa: PLR0913 - a command's options
    *,
    hidden: HiddenSizeOption = 512,
    ffn: ExpertSizeOption = 512,
    tokens: Annotated[int, typer.Option(help="Tokens.", min=1)] = 1024,
    experts: Annotated[int, typer.Option(help="Experts.", min=2)] = 16,
    top_k: Annotated[int, typer.Option(help="Experts a token.", min=1)] = 2,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--routing",
            help="Profiles.  [default: natural (with --replay) or untrained, forced, zipf:1,"
            " hot:0.5, hot:1]",
        ),
    ] = None,
    replay: ReplayOption = None,
    options: "BenchOptions",
) -> Records:
    """Measure what an imbalance costs: one layer under even, Zipf and hot-expert routing."""
    from benchmarks.bench import layer_shape

    shape = layer_shape.LayerShape(
        hidden_size=hidden,
        expert_ffn_hidden_size=ffn,
        num_experts=experts,
        top_k=top_k,
        tokens=tokens,
    )
    shapes = layer_shape.layer_shapes(shape)
    return _measure_layers("routing", shapes, profile, replay, options, IMBALANCES)


def _measure_layers(  # noqa: PLR0913, PLR0917 - a benchmark of layers and its routings
    bench: str,
    shapes: "Sequence[LayerShape]",
    routing: list[str] | None,
    replay: str | None,
    options: "BenchOptions",
    more_profiles: tuple[str, ...] = (),
) -> Records:
    """Measure layers; by default as recorded, or else untrained, and forced."""
    from benchmarks.bench import moe_layer
    from benchmarks.bench.forced_routing import parse_profile
    from benchmarks.bench.natural.replay import check_replay_used, open_replay

    own = "untrained" if replay is None else "natural"
    profiles = [parse_profile(text) for text in routing or (own, "forced", *more_profiles)]
    opened = open_replay(replay)
    check_replay_used(opened, profiles)
    return moe_layer.run(bench, shapes, profiles, opened, options)


@app.command()
@bench_command(repeats=7, warmup=2, runs_model=True)
def inference(
    models: ModelsArgument,
    *,
    layers: LayersOption = None,
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt.", min=1)] = 128,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate.", min=2)] = 32,
    batch: Annotated[int, typer.Option(help="Prompts at once.", min=1)] = 4,
    options: "BenchOptions",
) -> Records:
    """Measure prefill and decode beside dense models of equal active and equal total size."""
    from benchmarks.bench import inference

    plan = inference.InferencePlan(prompt_len=prompt, new_tokens=new_tokens, batch_size=batch)
    return inference.run(models, layers, plan, options)


@app.command()
@bench_command(repeats=11, warmup=2)
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
    options: "BenchOptions",
) -> Records:
    """Measure reading of samples beside other libraries, starts, and stream hashes."""
    from benchmarks.bench_data import loader

    plan = loader.LoaderPlan(
        seq_len=seq_len,
        num_tokens=tokens,
        samples=samples,
        order_samples=order_samples,
        corpus_tokens=corpus_tokens,
    )
    return loader.run(store, plan, options)


@app.command()
@bench_command(repeats=5)
def build(
    text: Annotated[
        list[Path] | None,
        typer.Argument(help="Files and folders.  [default: installed packages]", metavar="SRC..."),
    ] = None,
    *,
    megabytes: Annotated[float, typer.Option(help="Text to tokenize, MB.", min=0.1)] = 64.0,
    vocab_size: Annotated[int, typer.Option(help="Ids of the BPE trained here.", min=300)] = 16384,
    workers: Annotated[int | None, typer.Option(help="Processes.  [default: cores]", min=1)] = None,
    options: "BenchOptions",
) -> Records:
    """Measure building of a store beside datasets.map and Megatron's preprocessing."""
    from benchmarks.bench_data import build

    plan = build.default_plan(megabytes, vocab_size, workers)
    return build.run(text or [], plan, options)


@app.command()
@bench_command(repeats=6, warmup=1, runs_model=True)
def checkpoint(
    models: ModelsArgument,
    *,
    layers: LayersOption = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write.  [default: temporary directory]")
    ] = None,
    nproc: NprocOption = 1,
    options: "BenchOptions",
) -> Records:
    """Measure saving and loading of a whole training state."""
    from benchmarks.bench import checkpoint

    return checkpoint.run(models, layers, folder, options)


@app.command()
@bench_command(repeats=11, warmup=3, runs_model=True)
def collectives(
    *,
    size: Annotated[
        list[int] | None, typer.Option(help="Bytes.  [default: 64 KiB, 1 MiB, 16 MiB]")
    ] = None,
    nproc: NprocOption = 1,
    options: "BenchOptions",
) -> Records:
    """Measure collective operations between ranks, by size."""
    from benchmarks.bench import collectives

    return collectives.run(size or COLLECTIVE_SIZES, options)
