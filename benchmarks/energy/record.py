"""The `energy` section of a run's record: every joule with its origin."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.energy.source_selection import Choice
from benchmarks.energy.totals import Totals, first_of_each_device
from moe.config.energy import EnergyConfig
from parallel.measurement.measurement import Measurement


def energy_record(
    totals: Totals,
    reports: Sequence[Mapping[str, Any] | None],
    *,
    config: EnergyConfig,
    choice: Choice,
    tokens: int,
) -> dict[str, Any]:
    """Return JSON values: totals by phase, per token, idle power, and how they came about.

    Energy per token is the train phase's joules over all trained tokens; evaluation, checkpoints
    and waiting are shown beside it. Idle power is never subtracted.
    """
    info = choice.source.info if choice.source else None
    meter = {
        "source": info.name if info else config.source,
        "boundary": info.boundary if info else None,
        "kind": info.kind if info else None,
    }
    train = totals.energy(meter, "train")
    train_seconds = totals.phases.get("train", {}).get("seconds", 0.0)
    devices = first_of_each_device(reports)
    return {
        **meter,
        "note": info.note if info else None,
        "asked": config.source,
        "not_taken": choice.not_taken,
        "missing": totals.reasons,
        "total": totals.energy(meter).to_json(),
        "train": train.to_json(),
        "per_token": train.over(tokens, "J/token").to_json(),
        "mean_power": train.over(train_seconds, "W").to_json(),
        "idle_power": _idle_power(devices, meter).to_json(),
        "tokens": tokens,
        "phases": {
            name: {"seconds": phase["seconds"], **totals.energy(meter, name).to_json()}
            for name, phase in totals.phases.items()
        },
        "devices": [device["device"] for device in devices],
        "resolution_s": info.resolution_s if info else None,
        "starts": totals.starts,
        "overhead": {
            "reads": sum(device["num_reads"] for device in devices),
            "step_seconds": totals.own_seconds,
            "share_of_train_time": totals.own_seconds / train_seconds if train_seconds else None,
        },
    }


def _idle_power(devices: Sequence[Mapping[str, Any]], meter: Mapping[str, Any]) -> Measurement:
    watts: list[Any] = [device.get("idle_watts") for device in devices]
    if meter["kind"] != "measured":
        return Measurement.missing("W", meter["source"], "only a counter measures idle power")
    if not watts or None in watts:
        return Measurement.missing("W", meter["source"], "not measured before the run")
    return Measurement(value=sum(watts), unit="W", **meter)
