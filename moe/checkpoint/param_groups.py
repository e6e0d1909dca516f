"""Parameter groups of optimizers in older checkpoints, completed to those that there are now."""

from collections.abc import Mapping
from typing import Any


def add_missing_groups(saved: Any, current: Any) -> None:
    """Add to a saved optimizer's state the parameter groups that only the current one has.

    Versions before 0.2 decayed experts' biases in the group of experts' matrices. The new group
    of the biases goes on from that group: with its step count, and a multiplier of its own.
    `saved` and `current` are megatron-core's plain values: chained optimizers by number, each with
    `param_groups` somewhere in it. What is not in both is left alone.
    """
    if not (isinstance(saved, dict) and isinstance(current, Mapping)):
        return
    for key in saved.keys() & current.keys():
        if key == "param_groups":
            saved[key] += _missing(saved[key], current[key])
        else:
            add_missing_groups(saved[key], current[key])


def _missing(saved: list[dict[str, Any]], current: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    known = {(group["is_expert_parallel"], group["wd_mult"]) for group in saved}
    by_kind = {group["is_expert_parallel"]: group for group in saved}
    return [
        by_kind[group["is_expert_parallel"]] | {"wd_mult": group["wd_mult"]}
        for group in current
        if (group["is_expert_parallel"], group["wd_mult"]) not in known
        and group["is_expert_parallel"] in by_kind
    ]
