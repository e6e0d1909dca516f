"""What `moe eval`, `moe generate` and `moe audit` share: which model, and what they note."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Run of `moe train`, a checkpoint, or a converted model."),
]
StepOption = Annotated[
    int | None,
    typer.Option(help="Step of the checkpoint.  [default: the newest]", show_default=False),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(help="Token store.  [default: the run's]", show_default=False),
]
Device = Literal["auto", "cpu", "cuda"]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]


def note_other_numerics(document: Mapping[str, Any]) -> None:
    """Say on standard error that a run trained with FP8 was computed without."""
    trained, computed = document["trained_fp8"], document["fp8"]
    if trained != computed:
        typer.echo(
            f"moe: computed in {document['dtype']} without FP8; the run was trained with FP8"
            f" ({trained})",
            err=True,
        )
