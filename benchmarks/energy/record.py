"""The `energy` section of a run's record: every joule with its origin."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.energy.phases.totals import Totals, first_of_each_device
from benchmarks.energy.source import EnergyOrigin, SourceInfo
from benchmarks.energy.sources.selection import SourceSelection
from parallel.measurement.measurement import Measurement

# The section's keys in their order; a run metered afterwards lacks what only its own meter knows.
KEYS = ("source", "boundary", "kind", "note", "asked", "not_taken", "missing", "total", "train",
        "per_token", "mean_power", "idle_power", "tokens", "phases", "devices", "resolution_s",
        "starts", "overhead")  # fmt: skip


def energy_section(
    totals: Totals,
    info: SourceInfo | None,
    *,
    asked: str,
    tokens: int,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return JSON values: energy in total, by phase and per token, and how it was metered.

    Energy per token is that of the phase `train` over all tokens trained on; evaluation,
    checkpoints and waiting are shown beside it. Idle power is never subtracted.

    Args:
        totals: Joules and seconds by phase.
        info: The meter that was read; `None` where none was.
        asked: The source requested, `energy.source`.
        tokens: Tokens trained on, for energy per token.
        own: What only the run's own meter knows (`own_meter`).
    """
    origin = info.origin if info else EnergyOrigin(source=asked)
    train = totals.energy(origin, "train")
    section = {
        **origin.to_json(),
        "note": info.note if info else None,
        "asked": asked,
        "missing": totals.reasons,
        "total": totals.energy(origin).to_json(),
        "train": train.to_json(),
        "per_token": train.over(tokens, "J/token").to_json(),
        "mean_power": train.over(totals.train_seconds, "W").to_json(),
        "tokens": tokens,
        "phases": {
            name: {"seconds": phase["seconds"], **totals.energy(origin, name).to_json()}
            for name, phase in totals.phases.items()
        },
        "resolution_s": info.resolution_s if info else None,
        "starts": totals.starts,
        **(own or {}),
    }
    return {key: section[key] for key in KEYS if key in section}


def own_meter(
    totals: Totals,
    selection: SourceSelection,
    reports: Sequence[Mapping[str, Any] | None],
    asked: str,
) -> dict[str, Any]:
    """Return what only the run's own meter knows: devices, idle power, its cost in time."""
    devices = first_of_each_device(reports)
    info = selection.source.info if selection.source else None
    origin = info.origin if info else EnergyOrigin(source=asked)
    train_s = totals.train_seconds
    return {
        "not_taken": selection.rejected,
        "idle_power": _idle_power(devices, origin).to_json(),
        "devices": [device["device"] for device in devices],
        "overhead": {
            "reads": sum(device["num_reads"] for device in devices),
            "step_seconds": totals.metering_seconds,
            "share_of_train_time": totals.metering_seconds / train_s if train_s else None,
        },
    }


def _idle_power(devices: Sequence[Mapping[str, Any]], origin: EnergyOrigin) -> Measurement:
    watts: list[Any] = [device.get("idle_watts") for device in devices]
    if origin.kind != "measured":
        return Measurement.missing("W", origin.source, "only a counter measures idle power")
    if not watts or None in watts:
        return Measurement.missing("W", origin.source, "not measured before the run")
    return Measurement(value=sum(watts), unit="W", **origin.to_json())
