"""Options of `moe predict` and `moe choose`: limits, serving, cards."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.cli import plan_options as plan
from benchmarks.cli.report import (
    CurrencyOption,
    IntensityOption,
    PowerPriceOption,
    PriceOption,
    PueOption,
    assumption_changes,
)

if TYPE_CHECKING:
    from benchmarks.planning.failures import Reliability
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
SeqLenOption = Annotated[
    int | None, typer.Option(help="Tokens a sequence.  [default: 4096]", min=1, max=2**30)
]
GlobalBatchOption = Annotated[
    int | None,
    typer.Option(help="Sequences a step.  [default: by Step Law]", min=1, max=plan.MOST_SEQUENCES),
]
GpusOption = Annotated[int | None, typer.Option(help="Cards.", min=1, max=2**15)]
SHARED: Mapping[str, tuple[Any, Any]] = {
    "tokens": (DataOption, None),
    "memory_bytes": (MemoryBytesOption, None),
    "memory": (MemoryOption, MemoryName.SERVING),
    "served_tokens": (ServedOption, 0.0),
    "serving_utilisation": (ServingUtilisationOption, 0.1),
    "serving_bits": (ServingBitsOption, 16),
    "serving_context": (ServingContextOption, 4096),
    "serving_batch": (ServingBatchOption, 1),
    "gpu": (plan.GpuOption, None),
    "gpus": (GpusOption, None),
    "seq_len": (SeqLenOption, None),
    "global_batch_size": (GlobalBatchOption, None),
    "precision": (plan.PrecisionOption, None),
    "price": (PriceOption, None),
    "power_price": (PowerPriceOption, None),
    "currency": (CurrencyOption, None),
    "region": (plan.RegionOption, None),
    "intensity": (IntensityOption, None),
    "pue": (PueOption, None),
    "gpu_mtbf_hours": (plan.MtbfOption, 50_000.0),
    "checkpoint_seconds": (plan.CheckpointOption, 60.0),
    "restart_seconds": (plan.RestartOption, 600.0),
    "start": (plan.StartOption, None),
}
"""Options that both commands have, with their defaults."""
KEYWORD = inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options say that both commands have."""

    limits: Mapping[str, Any]
    """Of `Limits`: data, memory, serving."""
    options: "JobOptions | None"
    """Cards and what is said of the job; None where no cards are named."""
    reliability: "Reliability"
    started: datetime | None


def decision_command(run: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function: it has the function's options and those that both have.

    The function receives the latter as one `asked`.
    """
    own = [p for p in inspect.signature(run).parameters.values() if p.name != "asked"]
    shared = [
        inspect.Parameter(name, KEYWORD, default=default, annotation=annotation)
        for name, (annotation, default) in SHARED.items()
    ]

    @functools.wraps(run)
    def command(**values: Any) -> None:
        given = {name: values.pop(name) for name in SHARED}
        run(**values, asked=_asked(given))

    signature = inspect.Signature([*own[:-1], *shared, own[-1]])  # --json last
    command.__signature__ = signature  # type: ignore[attr-defined]  # read by typer
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return command


def _asked(given: Mapping[str, Any]) -> Asked:
    """Bring the options' values into the forms that decisions take.

    Raises:
        BenchmarkError: A value is impossible; cards are named by half, or are missing.
    """
    from benchmarks.decisions.limits import Serving
    from benchmarks.planning.failures import Reliability

    serving = Serving(
        tokens=given["served_tokens"],
        utilisation=given["serving_utilisation"],
        weight_bits=given["serving_bits"],
        context=given["serving_context"],
        batch=given["serving_batch"],
    )
    return Asked(
        limits={
            "tokens": given["tokens"],
            "memory_bytes": given["memory_bytes"],
            "memory": given["memory"].value,
            "serving": serving,
        },
        options=_cards(given),
        reliability=Reliability(
            gpu_mtbf_hours=given["gpu_mtbf_hours"],
            checkpoint_seconds=given["checkpoint_seconds"],
            restart_seconds=given["restart_seconds"],
        ),
        started=date_of(given["start"]),
    )


def _cards(given: Mapping[str, Any]) -> "JobOptions | None":
    from benchmarks.errors import BenchmarkError
    from benchmarks.planning.job import JobOptions

    gpu, gpus = given["gpu"], given["gpus"]
    if (gpu is None) != (gpus is None):
        raise BenchmarkError("--gpu and --gpus go together: name the card and how many")
    job = {name: given[name] for name in ("seq_len", "global_batch_size", "precision")}
    money = ("region", "intensity", "pue", "price", "power_price", "currency")
    if gpu is not None:
        prices = [name for name in ("price", "power_price") if given[name] is not None]
        if prices and given["currency"] is None:
            option = prices[0].replace("_", "-")
            raise BenchmarkError(f"--{option}: of no currency: give --currency, for example USD")
        assumptions = assumption_changes(*(given[name] for name in money))
        return JobOptions(gpu=gpu, gpus=gpus, **job, assumptions=assumptions)
    for name in (*job, *money):
        if given[name] is not None:
            raise BenchmarkError(
                f"--{name.replace('_', '-')} is of a layout on cards: give --gpu and --gpus"
            )
    return None


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
