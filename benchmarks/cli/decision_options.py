"""Options of `moe predict` and `moe choose`: limits, serving, cards."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from benchmarks.planning.job import JobOptions


class MemoryName(StrEnum):
    """What a limit of memory is about."""

    TRAINING = "training"
    SERVING = "serving"


FlopsOption = Annotated[float | None, typer.Option(help="Most FLOPs, by the law's convention.")]
HoursOption = Annotated[float | None, typer.Option("--gpu-hours", help="Most GPU-hours.")]
JoulesOption = Annotated[
    float | None, typer.Option("--joules", help="Most joules of the facility.")
]
MoneyOption = Annotated[float | None, typer.Option("--money", help="Most money, in --currency.")]
Gco2Option = Annotated[float | None, typer.Option("--gco2", help="Largest emissions, gCO2e.")]
BudgetHoursOption = Annotated[
    float | None, typer.Option("--budget-gpu-hours", help="Most GPU-hours.")
]
BudgetJoulesOption = Annotated[
    float | None, typer.Option("--budget-joules", help="Most joules of the facility.")
]
BudgetMoneyOption = Annotated[
    float | None, typer.Option("--budget-money", help="Most money, in --currency.")
]
BudgetGco2Option = Annotated[
    float | None, typer.Option("--budget-gco2", help="Largest emissions, gCO2e.")
]
DataOption = Annotated[
    float | None, typer.Option("--tokens", help="Most training tokens: what data there is.")
]
MemoryBytesOption = Annotated[
    float | None, typer.Option(help="Most bytes: of a served model, or of each card in training.")
]
MemoryOption = Annotated[MemoryName, typer.Option(help="What --memory-bytes limits.")]
ServedOption = Annotated[
    float,
    typer.Option("--served-tokens", help="Tokens that the trained model will serve, paid for."),
]
ServingUtilisationOption = Annotated[
    float, typer.Option(help="Share of the card's rate that serving reaches.")
]
ServingBitsOption = Annotated[int, typer.Option(help="Of a served weight.", min=1, max=32)]
ServingContextOption = Annotated[
    int, typer.Option(help="Tokens of a served sequence in its KV cache.", min=1, max=2**40)
]
ServingBatchOption = Annotated[
    int, typer.Option(help="Sequences served at once.", min=1, max=2**30)
]
GpusOption = Annotated[int | None, typer.Option(help="Cards.", min=1, max=2**15)]


def date_of(text: str | None) -> datetime | None:
    """Return `--start` as a time.

    Raises:
        BenchmarkError: It is no date.
    """
    from benchmarks.errors import BenchmarkError

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise BenchmarkError(f"--start {text[:40]!r}: give a date such as 2026-12-01") from None
    return time.replace(tzinfo=time.tzinfo or UTC)


def cards_of(gpu: str | None, gpus: int | None, options: Mapping[str, Any]) -> "JobOptions | None":
    """Return the cards and what is said of the job; None where no cards are named.

    Raises:
        BenchmarkError: One of the two is missing, or an option that is only of cards is given.
    """
    from benchmarks.errors import BenchmarkError
    from benchmarks.planning.job import JobOptions

    if (gpu is None) != (gpus is None):
        raise BenchmarkError("--gpu and --gpus go together: name the card and how many")
    if gpu is not None and gpus is not None:
        return JobOptions(gpu=gpu, gpus=gpus, **options)
    assumed = {n: v for n, v in options["assumptions"].items() if v is not None}
    given = [n for n, v in options.items() if v is not None and n != "assumptions"] + [*assumed]
    if given:
        raise BenchmarkError(
            f"{given[0].replace('_', '-')} is of a layout on cards: give --gpu and --gpus"
        )
    return None
