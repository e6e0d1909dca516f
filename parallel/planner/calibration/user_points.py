"""Calibrates a card on what `moe bench gemm|attention --out FILE` measured on the user's machine.

A dozen points give one factor for each kind of kernel, the median of measured over modelled time;
shapes keep the model's form. Machines of one card differ by 10 to 15 percent.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, isfinite, log
from pathlib import Path
from statistics import median
from typing import Any

from parallel.errors import ParallelError
from parallel.hardware.card import Card
from parallel.planner.compute_time.attention import AttentionShape, attention_seconds
from parallel.planner.compute_time.gemm import OPERAND_BYTES, gemm_seconds

_CHOICE = "torch's choice"
"""The attention backend that a model gets."""


@dataclass(frozen=True, kw_only=True)
class KindCalibration:
    """What a file's points of one kind of kernel say."""

    points: int
    factor: float
    """Median of measured over modelled time, which the card now has."""
    error_before: float
    """Median of |ln(modelled / measured)| without the factor."""
    error_after: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A card with factors of one machine."""

    card: Card
    kinds: Mapping[str, KindCalibration]
    unused: int
    """Records of the file that are of no kernel or precision that is modelled here."""


def calibrate_card(card: Card, path: Path) -> Calibration:
    """Return the card with the factors that a file's records give.

    Raises:
        ParallelError: The file cannot be read, or has no record that calibrates a kernel.
    """
    ratios: dict[str, list[float]] = {}
    unused = 0
    for number, record in enumerate(_records(path), 1):
        try:
            pairs = list(_measured_over_modelled(card, record))
        except ParallelError:
            raise
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise ParallelError(
                f"calibration {str(path)!r}, line {number}: not a record of moe bench: {error!r}"
            ) from error
        unused += not pairs
        for kind, ratio in pairs:
            if not (isfinite(ratio) and ratio > 0):
                raise ParallelError(
                    f"calibration {str(path)!r}, line {number}: {kind} took {ratio:g} times the "
                    "modelled time: times and sizes have to be positive numbers"
                )
            ratios.setdefault(kind, []).append(ratio)
    if not ratios:
        raise ParallelError(
            f"calibration {str(path)!r}: no record calibrates a kernel; "
            "measure some with moe bench gemm --out or moe bench attention --out"
        )
    kinds = {kind: _calibrated(values) for kind, values in sorted(ratios.items())}
    factors = {
        **card.kernels.machine_factors,
        **{kind: card.kernels.machine_factor(kind) * found.factor for kind, found in kinds.items()},
    }
    kernels = card.kernels.model_copy(update={"machine_factors": factors})
    return Calibration(
        card=card.model_copy(update={"kernels": kernels}), kinds=kinds, unused=unused
    )


def _records(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ParallelError(
            f"calibration {str(path)!r}: cannot be read as JSON lines: {error}"
        ) from error


def _measured_over_modelled(card: Card, record: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Yield kind and measured over modelled time of a record; nothing where none is modelled."""
    case, result = record["case"], record["result"]
    if record["bench"] == "gemm":
        yield from _gemm_ratio(card, case, result)
    elif record["bench"] == "attention" and case["dtype"] == "bf16":
        yield from _attention_ratios(card, case, result)


def _gemm_ratio(
    card: Card, case: Mapping[str, Any], result: Mapping[str, Any]
) -> Iterable[tuple[str, float]]:
    """Yield the ratio of one product: the fastest implementation, sustained where measured."""
    precision = str(case["dtype"])
    if precision not in OPERAND_BYTES or int(case["groups"]) != 1:
        return
    rows = result["implementations"]
    held = [row["sustained_s"] for row in rows if row["sustained_s"]]
    measured = min(held or [row["burst_s"]["median"] for row in rows])
    # Each call of a short run waits for the one before: the power limit has no time to act.
    modelled = gemm_seconds(
        card, case["m"], case["n"], case["k"], precision, repetitions=None if held else 1
    )
    yield f"gemm.{precision}", float(measured) / modelled


def _attention_ratios(
    card: Card, case: Mapping[str, Any], result: Mapping[str, Any]
) -> Iterable[tuple[str, float]]:
    shape = AttentionShape(
        batch=case["batch_size"],
        seq=case["seq_len"],
        heads=case["num_heads"],
        kv_heads=case["num_kv_heads"],
        qk_dim=case["qk_head_dim"],
        v_dim=case["v_head_dim"],
    )
    for row in result["backends"]:
        if row["backend"] != _CHOICE:
            continue
        for kind in ("forward", "backward"):
            modelled = attention_seconds(card, shape, backward=kind == "backward", repetitions=1)
            yield f"attention.{kind}", float(row[f"{kind}_s"]["median"]) / modelled


def _calibrated(ratios: list[float]) -> KindCalibration:
    factor = exp(median(log(ratio) for ratio in ratios))
    return KindCalibration(
        points=len(ratios),
        factor=factor,
        error_before=median(abs(log(ratio)) for ratio in ratios),
        error_after=median(abs(log(ratio / factor)) for ratio in ratios),
    )
