"""`moe bench gemm` and `moe bench attention`: kernels alone."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.cli.options import Records, bench_command

if TYPE_CHECKING:
    from benchmarks.bench.cases import BenchOptions


class GemmFormat(StrEnum):
    """Number formats of matrix products."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP8 = "fp8"


class AttentionFormat(StrEnum):
    """Number formats of torch's attention."""

    FP32 = "fp32"
    BF16 = "bf16"


OptionalModels = Annotated[
    list[str] | None, typer.Argument(metavar="[MODEL...]", help="Presets or TOML files.")
]


@bench_command(repeats=11, warmup=3, runs_model=True)
def gemm(
    models: OptionalModels = None,
    *,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[GROUPSx]MxNxK", help="Sizes of y[m, n] = x[m, k] w[n, k]^T; several."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of the models' products.", min=1)] = 4096,
    dtype: Annotated[
        list[GemmFormat] | None,
        typer.Option(help="Number format; several. FP8 leaves routers and heads out.  "
                     "[default: fp32]"),
    ] = None,
    sustained: Annotated[
        float, typer.Option(help="Run each back to back for this long, s; 0: not.", min=0, max=60)
    ] = 2.0,
    options: "BenchOptions",
) -> Records:  # fmt: skip
    """Measure matrix products alone, in bursts and sustained: given ones, or a model's layer."""
    from benchmarks.bench import gemm

    plan = gemm.GemmPlan(
        models=models or [],
        shapes=shape or [],
        tokens=tokens,
        dtypes=[one.value for one in dtype or [GemmFormat.FP32]],
        sustained_s=sustained,
    )
    return gemm.run(plan, options)


@bench_command(repeats=11, warmup=3, runs_model=True)
def attention(  # noqa: PLR0913 - a command's options
    models: OptionalModels = None,
    *,
    heads: Annotated[int | None, typer.Option(help="Heads, without a model.", min=1)] = None,
    kv_heads: Annotated[
        int | None, typer.Option(help="Key-value heads.  [default: --heads]", min=1)
    ] = None,
    head_dim: Annotated[int, typer.Option(help="Head dimension, with --heads.", min=1)] = 128,
    batch: Annotated[int, typer.Option(help="Sequences.", min=1)] = 1,
    seq_len: Annotated[
        list[int] | None, typer.Option(help="Tokens a sequence; several.  [default: 1024]", min=1)
    ] = None,
    dtype: Annotated[
        list[AttentionFormat] | None,
        typer.Option(help="Number format; several.  [default: fp32]"),
    ] = None,
    options: "BenchOptions",
) -> Records:
    """Measure causal attention alone, forward and backward: torch's backends beside each other."""
    from benchmarks.bench import attention

    plan = attention.AttentionPlan(
        models=models or [],
        heads=None if heads is None else (heads, kv_heads or heads, head_dim),
        batch_size=batch,
        seq_lens=seq_len or [1024],
        dtypes=[one.value for one in dtype or [AttentionFormat.FP32]],
    )
    return attention.run(plan, options)
