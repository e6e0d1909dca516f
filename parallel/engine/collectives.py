"""Gathers of picklable objects over all ranks, and the group of ranks that wait for storage."""

from datetime import timedelta
from typing import Any

import torch.distributed as dist


def all_gather_objects(value: Any) -> list[Any]:
    """Return the object of every rank, in rank order, on every rank; collective.

    Objects are pickled.
    """
    if dist.get_world_size() == 1:
        return [value]
    objects: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(objects, value)
    return objects


def new_storage_group(timeout_s: float) -> dist.ProcessGroup | None:
    """Make a group of all ranks, over gloo, in which one may wait `timeout_s` s; collective.

    The default group's time-out is for ranks that compute. None where there is one rank.
    """
    if dist.get_world_size() == 1:
        return None
    group: dist.ProcessGroup = dist.new_group(
        backend="gloo", timeout=timedelta(seconds=2 * timeout_s)
    )
    return group


def gather_objects(value: Any) -> list[Any] | None:
    """Return the object of every rank, in rank order, on rank 0 and None elsewhere; collective.

    Objects are pickled.
    """
    if dist.get_world_size() == 1:
        return [value]
    objects: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, objects)
    return objects
