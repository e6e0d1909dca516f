"""Parameter groups of optimizers in checkpoints, completed to those that there are now."""

from collections.abc import Mapping
from typing import Any

_KIND = ("is_expert_parallel", "wd_mult")
"""What tells the groups of one optimizer apart."""


def complete_groups(saved: Any, current: Any) -> None:
    """Add to a saved optimizer's state the groups and settings that only the current one has.

    Versions before 0.2 decayed experts' biases in the group of experts' matrices. The new group
    of the biases goes on from that group: with its step count, and a multiplier of its own.
    Each kernel set's Adam has settings that the other's does not know.
    `saved` and `current` are megatron-core's plain values: chained optimizers by number, each with
    `param_groups` somewhere in it. What is not in both is left alone.
    """
    if not (isinstance(saved, dict) and isinstance(current, Mapping)):
        return
    for key in saved.keys() & current.keys():
        if key == "param_groups":
            groups = saved[key] + _missing(saved[key], current[key])
            saved[key] = [_completed(group, current[key]) for group in groups]
        else:
            complete_groups(saved[key], current[key])


def _missing(saved: list[dict[str, Any]], current: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    known = {(group["is_expert_parallel"], group["wd_mult"]) for group in saved}
    by_kind = {group["is_expert_parallel"]: group for group in saved}
    return [
        by_kind[group["is_expert_parallel"]] | {"wd_mult": group["wd_mult"]}
        for group in current
        if (group["is_expert_parallel"], group["wd_mult"]) not in known
        and group["is_expert_parallel"] in by_kind
    ]


def _completed(saved: dict[str, Any], current: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a saved group with what it does not say as in the current group of its kind."""
    alike = (group for group in current if all(group[key] == saved[key] for key in _KIND))
    return {**next(alike, {}), **saved}
