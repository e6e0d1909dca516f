"""Record the experts that routers choose, save them, and replay them instead of choosing.

A replay separates the two causes of a difference between two models, precisions or versions: the
choice of experts, and arithmetic.

Shapes: T tokens without padding, K experts per token.
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
from data.storage.regular_file import open_regular
from moe.errors import ConfigError, StorageError
from moe.model.routing_rule import RoutingDecision
from moe.routing.decision_hooks import decision_hook, routers_of
from moe.storage.safetensors_io import inherit_permissions


class RoutingRecord:
    """The experts of every forward pass: for each sparse layer (from 1), [T, K] per pass."""

    def __init__(self, passes: dict[int, list[Tensor]] | None = None, about: str = "") -> None:
        self.passes: dict[int, list[Tensor]] = passes or {}
        self.about = about
        """Describes the sequences that were routed; a replay must have the same."""

    def add(self, layer_number: int, decision: RoutingDecision) -> None:
        """Append the experts of a decision."""
        experts = decision.experts.to("cpu", torch.int16)
        self.passes.setdefault(layer_number, []).append(experts)

    def save(self, path: Path) -> None:
        """Write a safetensors file with int16 tensors named `layer.pass`.

        Raises:
            StorageError: The file cannot be written.
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
            ConfigError: There is no such file, or it is not a routing record.
        """
        passes: dict[int, dict[int, Tensor]] = {}
        try:
            open_regular(path).close()  # the library would wait for a pipe's writer
            with safe_open(path, "pt") as file:
                about = (file.metadata() or {})["about"]
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    layer, number = map(int, key.split("."))
                    passes.setdefault(layer, {})[number] = _experts(file, key)
            record = cls(about=about)
            for layer, by_number in passes.items():
                record.passes[layer] = [by_number[number] for number in range(len(by_number))]
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            fault = f"{error.strerror}" if isinstance(error, OSError) and error.errno else error
            raise ConfigError(f"{path}: no record of routing decisions: {fault}") from None
        return record


def _experts(file: Any, key: str) -> Tensor:
    """Return a tensor of a record, [T, K].

    Raises:
        ValueError: It holds something else than experts.
    """
    experts: Tensor = file.get_tensor(key)
    if experts.dtype != torch.int16 or experts.dim() != 2 or (experts < 0).any():
        raise ValueError(f"tensor {key} holds no experts")
    return experts


@contextmanager
def recording(chunks: Sequence[Any], about: str = "") -> Iterator[RoutingRecord]:
    """Record the decisions of every forward pass inside the block."""
    record = RoutingRecord(about=about)
    with decision_hook(routers_of(chunks), record.add):
        yield record


@contextmanager
def replaying(chunks: Sequence[Any], record: RoutingRecord) -> Iterator[None]:
    """Replay recorded expert choices, pass by pass; routing weights are still the model's own.

    Raises:
        ConfigError: The record is of other layers, of fewer passes, or of passes of another size.
    """
    routers = routers_of(chunks)
    _check_layers([router.layer_number for router in routers], record.passes)
    for router in routers:
        _check_experts(router, record.passes[router.layer_number])
    hooks = [router.register_forward_pre_hook(_Replay(record.passes)) for router in routers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for router in routers:
            router.forced_experts = None


class _Replay:
    """Sets the experts of one router before each forward pass."""

    def __init__(self, passes: Mapping[int, Sequence[Tensor]]) -> None:
        self._passes = passes
        self._next = 0

    def __call__(self, router: Any, inputs: tuple[Tensor | None, ...]) -> None:
        passes = self._passes[router.layer_number]
        hidden, padding_mask = (*inputs, None)[:2]
        assert hidden is not None
        padding = 0 if padding_mask is None else int(padding_mask.sum())
        tokens = hidden.shape[0] * hidden.shape[1] - padding
        if self._next == len(passes) or passes[self._next].shape != (tokens, router.topk):
            raise ConfigError(
                f"the routing record does not fit: pass {self._next + 1} of layer"
                f" {router.layer_number} has {tokens} tokens and {router.topk} experts each, the"
                f" record {_shape(passes, self._next)}: replay what was recorded"
            )
        router.forced_experts = passes[self._next].to(hidden.device, torch.int64)
        self._next += 1


def _shape(passes: Sequence[Tensor], number: int) -> str:
    if number == len(passes):
        return f"only {number} passes"
    tokens, experts = passes[number].shape
    return f"{tokens} and {experts}"


def _check_experts(router: Any, passes: Sequence[Tensor]) -> None:
    highest = max((int(experts.max()) for experts in passes if experts.numel()), default=-1)
    if highest >= router.rule.num_experts:
        raise ConfigError(
            f"the routing record has expert {highest} in layer {router.layer_number}, the model"
            f" only 0 to {router.rule.num_experts - 1}: replay what was recorded"
        )


def _check_layers(layers: list[int], passes: Mapping[int, Any]) -> None:
    if not set(layers) <= passes.keys():
        raise ConfigError(
            f"the routing record is of layers {sorted(passes)}, the model's are {layers}"
        )
