"""What a command's records must show, beyond that it ended well, for its claim to be proven."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

Record = Mapping[str, Any]
Proof = Callable[[Sequence[Record]], str | None]
"""Returns why the records prove nothing, in one line; None where they do."""


def energy_is_counted(records: Sequence[Record]) -> str | None:
    """Check that every energy per token is a counter's."""
    for record in records:
        for row in record["result"]["routing"]:
            energy = row["energy_per_token"]
            if energy["kind"] != "measured" or energy["source"] != "nvml":
                what = energy["reason"] or f"{energy['kind']}, by {energy['source']}"
                return f"energy per token under {row['routing']} routing is not measured: {what}"
    return None


def ran_in_te(recipe: str | None) -> Proof:
    """Return a proof that steps ran in kernel set `te`, with an FP8 recipe or without FP8."""
    return partial(_ran_in_te, recipe)


def _ran_in_te(recipe: str | None, records: Sequence[Record]) -> str | None:
    for record in records:
        execution = record["result"]["execution"]
        fp8 = execution["fp8"] and execution["fp8"]["recipe"]
        if execution["kernels"] != "te" or fp8 != recipe:
            return (
                f"asked for te and {recipe}, the built model has {execution['kernels']} and {fp8}"
            )
    return None
