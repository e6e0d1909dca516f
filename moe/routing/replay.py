"""Routing decisions recorded, kept in a file, and taken again instead of choosing.

A replay tells how much of a difference between two models, precisions or versions is the choice of
experts, and how much is arithmetic.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data.storage.atomic import atomic_path
from moe.errors import ConfigError, StorageError
from moe.model.routing_rule import Decision
from moe.routing.statistics import routers_of, watching
from moe.storage.safetensors_io import inherit_permissions


class RoutingRecord:
    """The experts of every forward pass: for each sparse layer (from 1), [T, K] a pass."""

    def __init__(self, passes: dict[int, list[Tensor]] | None = None, about: str = "") -> None:
        self.passes: dict[int, list[Tensor]] = passes or {}
        self.about = about
        """What was routed: sequences of another kind must not be replayed with it."""

    def add(self, layer_number: int, decision: Decision) -> None:
        """Take note of a decision."""
        experts = decision.experts.to("cpu", torch.int16)
        self.passes.setdefault(layer_number, []).append(experts)

    def save(self, path: Path) -> None:
        """Write a safetensors file; int16 tensors `layer.pass`.

        Raises:
            StorageError: The disk does not take it.
        """
        tensors = {
            f"{layer}.{number}": experts.contiguous()
            for layer, passes in self.passes.items()
            for number, experts in enumerate(passes)
        }
        try:
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, metadata={"about": self.about})
                inherit_permissions(temporary)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{path}: {error}") from None

    @classmethod
    def load(cls, path: Path) -> "RoutingRecord":
        """Read what `save` wrote.

        Raises:
            ConfigError: No such file, or it is none of these.
        """
        passes: dict[int, dict[int, Tensor]] = {}
        try:
            with safe_open(path, "pt") as file:
                about = (file.metadata() or {})["about"]
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    layer, number = map(int, key.split("."))
                    passes.setdefault(layer, {})[number] = file.get_tensor(key)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ConfigError(f"{path}: no record of routing decisions: {error}") from None
        return cls(
            {layer: [some[i] for i in sorted(some)] for layer, some in passes.items()}, about
        )


@contextmanager
def recording(chunks: Sequence[Any], about: str = "") -> Iterator[RoutingRecord]:
    """Record the decisions of every forward pass inside."""
    record = RoutingRecord(about=about)
    with watching(routers_of(chunks), record.add):
        yield record


@contextmanager
def replaying(chunks: Sequence[Any], record: RoutingRecord) -> Iterator[None]:
    """Let routers take recorded experts, pass by pass; their weights are still the model's own.

    Raises:
        ConfigError: The record has other layers, fewer passes or passes of other sizes.
    """
    routers = routers_of(chunks)
    _check_layers([router.layer_number for router in routers], record.passes)
    hooks = [router.register_forward_pre_hook(_Replay(record.passes)) for router in routers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for router in routers:
            router.replay = None


class _Replay:
    """Hands one router the experts of each pass."""

    def __init__(self, passes: Mapping[int, Sequence[Tensor]]) -> None:
        self._passes = passes
        self._next = 0

    def __call__(self, router: Any, inputs: tuple[Tensor, ...]) -> None:
        passes = self._passes[router.layer_number]
        tokens = inputs[0].shape[0] * inputs[0].shape[1]
        if self._next == len(passes) or passes[self._next].shape != (tokens, router.topk):
            raise ConfigError(
                f"the routing record does not fit: pass {self._next + 1} of layer"
                f" {router.layer_number} has {tokens} tokens and {router.topk} experts each, the"
                f" record {_shape(passes, self._next)}: replay what was recorded"
            )
        router.replay = passes[self._next].to(inputs[0].device, torch.int64)
        self._next += 1


def _shape(passes: Sequence[Tensor], number: int) -> str:
    if number == len(passes):
        return f"only {number} passes"
    tokens, experts = passes[number].shape
    return f"{tokens} and {experts}"


def _check_layers(layers: list[int], passes: Mapping[int, Any]) -> None:
    if not set(layers) <= passes.keys():
        raise ConfigError(
            f"the routing record is of layers {sorted(passes)}, the model's are {layers}"
        )
