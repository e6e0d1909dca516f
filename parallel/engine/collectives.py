"""Gathers of picklable objects over all ranks of the default process group."""

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


def gather_objects(value: Any) -> list[Any] | None:
    """Return the object of every rank, in rank order, on rank 0 and None elsewhere; collective.

    Objects are pickled.
    """
    if dist.get_world_size() == 1:
        return [value]
    objects: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, objects)
    return objects
