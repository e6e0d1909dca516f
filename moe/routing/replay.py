"""Record the experts that routers choose, and replay them instead of choosing.

A replay separates the two causes of a difference between two models, precisions or versions: the
choice of experts, and arithmetic.

Shapes: T tokens without padding, K experts per token.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from moe.errors import ConfigError
from moe.routing.decision_hooks import decision_hook, routers_of
from moe.routing.record import RecordOrigin, RoutingRecord


@contextmanager
def recording(chunks: Sequence[Any], origin: RecordOrigin | None = None) -> Iterator[RoutingRecord]:
    """Record the decisions of every forward pass inside the block; `origin` is for a file."""
    record = RoutingRecord(origin=origin)
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
