"""Options of `moe plan` that do not go together: refused before anything is planned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

OF_A_RUN = (
    "price", "power_price", "currency", "region", "intensity", "gpu_mtbf_hours",
    "checkpoint_seconds", "restart_seconds", "start",
)  # fmt: skip
"""Options that only the need of a run depends on."""
RUNS = (
    "target_tokens", "target_loss", "budget_gpu_hours", "budget_joules", "budget_money",
    "budget_gco2",
)  # fmt: skip
"""Options that ask what a run needs."""
WITH_VALIDATE = ("validate", "as_json")
WITHOUT_WHY = {
    "layout": "a layout is compared with the best of a search",
    "export": "the best layout would be printed in place of the reason",
}
"""Options that `--why` does not take, and the reason."""


def refuse_conflicts(context: typer.Context) -> None:
    """Refuse options that contradict, or do nothing beside, the others that were given.

    Raises:
        BenchmarkError: Names both.
    """
    from benchmarks.errors import BenchmarkError

    # By the source's name: typer may bring a click of its own.
    values = {
        name: value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    names = {str(one.name): (one.opts or [one.name])[0] for one in context.command.params}
    names["target"] = "a model or experiment"
    if fault := _fault(values, names):
        raise BenchmarkError(fault)


def _fault(values: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    if "validate" in values:
        for name in values:
            if name not in WITH_VALIDATE:
                return f"--validate reads its file alone, and {names[name]} is given: remove it"
    if "why" in values:
        for name, reason in WITHOUT_WHY.items():
            if name in values:
                return f"--why with {names[name]}: {reason}: leave one out"
    if not any(name in values for name in RUNS):
        for name in OF_A_RUN:
            if name in values:
                return f"{names[name]} is of a run: say --target-tokens or a --budget-..."
    if ("target_loss" in values) != ("law" in values):
        return "--target-loss and --law go together: the law tells the tokens that the loss needs"
    if "target_loss" in values and "target_tokens" in values:
        return "--target-loss with --target-tokens: both say how long to train: leave one out"
    return _same_file(values, names)


def _same_file(values: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    """Return which two options would write one file, or write over what is planned."""
    seen: dict[Path, str] = {}
    files = [("calibrate", file) for file in values.get("calibrate") or ()]
    files += [(name, values[name]) for name in ("target", "html", "trace") if name in values]
    for name, file in files:
        path = Path(file).resolve()
        if path in seen:
            return f"{names[name]} {file}: {seen[path]} is the same file: name another"
        seen[path] = names[name]
    return None
