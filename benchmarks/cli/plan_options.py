"""Options of `moe plan`, by what they are about."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

MOST_SEQUENCES = 2**22


class ExportName(StrEnum):
    """Programs in whose words a layout can be printed."""

    MEGATRON = "megatron"
    BRIDGE = "bridge"


class RoutingName(StrEnum):
    """How tokens reach experts."""

    FORCED = "forced"
    NATURAL = "natural"


# What is planned.
TargetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="EXPERIMENT|MODEL", help="Experiment, TOML file with [model], or preset."
    ),
]
GpusOption = Annotated[int | None, typer.Option(help="Cards.", min=1, max=2**20)]
GpuOption = Annotated[str | None, typer.Option(help="Card: a shipped name, or a TOML file.")]
SeqLenOption = Annotated[
    int | None, typer.Option(help="Tokens a sequence.  [default: experiment's, or 4096]", min=1)
]
GlobalBatchOption = Annotated[
    int | None,
    typer.Option(
        help="Sequences a step.  [default: experiment's, or 1024]", min=1, max=MOST_SEQUENCES
    ),
]
MicroBatchOption = Annotated[
    int | None,
    typer.Option(
        help="Sequences of a forward pass.  [default: searched]", min=1, max=MOST_SEQUENCES
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...|any",
        help="Of matrix products: fp32, bf16, fp8, fp8-delayed, fp8-blockwise, mxfp8; several are"
        " ranked together.  [default: experiment's, or bf16]",
    ),
]
RoutingOption = Annotated[
    RoutingName, typer.Option(help="Tokens reach experts evenly by force, or as routers choose.")
]
ImbalanceOption = Annotated[
    float,
    typer.Option(help="Tokens of the busiest rank's experts over the mean; at least 1."),
]
CalibrateOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Your cards' records of moe bench ... --out; several."),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the experiment."),
]

# What is asked.
LayoutOption = Annotated[
    str | None,
    typer.Option(help="Evaluate only this: tp=4,pp=2,ep=8,... or `own`, the experiment's."),
]
WhyOption = Annotated[
    str | None, typer.Option(metavar="LAYOUT", help="Say why this one lost: tp=4,pp=2.")
]
TopOption = Annotated[int, typer.Option(help="Layouts to show.", min=1, max=1000)]
ValidateOption = Annotated[
    Path | None,
    typer.Option(
        "--validate", metavar="FILE", help="Compare predictions with published steps (CSV)."
    ),
]
SweepOption = Annotated[
    str | None,
    typer.Option(metavar="FEWEST:MOST", help="Strong and weak scaling, for example 64:16384."),
]

# What a run needs.
TokensOption = Annotated[
    float | None, typer.Option(help="Tokens to train on, e.g. 15e12.", min=1, max=1e30)
]
TargetLossOption = Annotated[
    float | None, typer.Option(help="Loss to train to, nats per token; by --law.")
]
LawOption = Annotated[
    str | None,
    typer.Option(metavar="LAW", help="Output of moe fit --json, or published name."),
]
GpuHoursOption = Annotated[float | None, typer.Option(help="Most GPU-hours.", min=1e-9, max=1e30)]
JoulesOption = Annotated[
    float | None, typer.Option(help="Most joules of the facility.", min=1e-9, max=1e30)
]
MoneyOption = Annotated[
    float | None, typer.Option(help="Most money, in --currency.", min=1e-9, max=1e30)
]
Gco2Option = Annotated[
    float | None,
    typer.Option("--budget-gco2", help="Largest emissions, gCO2e.", min=1e-9, max=1e30),
]
MtbfOption = Annotated[
    float, typer.Option(help="Hours of one GPU between failures.", min=1e-3, max=1e12)
]
CheckpointOption = Annotated[
    float, typer.Option(help="Seconds that a checkpoint holds up.", min=1e-3, max=1e6)
]
RestartOption = Annotated[
    float, typer.Option(help="Seconds from a failure to the next step.", min=0, max=1e6)
]
StartOption = Annotated[
    str | None, typer.Option(metavar="DATE", help="When it starts, ISO 8601.  [default: now]")
]

# Where the answer goes.
WriteOption = Annotated[
    bool, typer.Option("--write", help="Put the best into the experiment's [parallel].")
]
ExportOption = Annotated[
    ExportName | None,
    typer.Option("--as", help="Print the best as Megatron-LM's arguments, or Bridge's settings."),
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write one offline page.")
]
TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", help="Write the best's timeline for Perfetto."),
]
RegionOption = Annotated[
    str | None, typer.Option(help="Grid zone for emissions, e.g. FRA or US-CA.")
]
