"""Where routing decisions are observed: the routers of a built model, and hooks on them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from moe.config.model import ModelConfig
from moe.model.routing_rule import DecisionHook


def sparse_layers(model: ModelConfig) -> list[int]:
    """Return the numbers of the sparse layers, from 0."""
    return [i for i, sparse in enumerate(model.sparse_layers) if sparse]


def routers_of(chunks: Sequence[Any]) -> list[Any]:
    """Return the routers of this rank's decoder layers, in order."""
    layers = [layer for chunk in chunks for layer in chunk.decoder.layers]
    return [layer.mlp.router for layer in layers if hasattr(layer.mlp, "router")]


@contextmanager
def decision_hook(routers: Sequence[Any], hook: DecisionHook) -> Iterator[None]:
    """Call `hook` with every routing decision inside the block."""
    for router in routers:
        router.decision_hooks.append(hook)
    try:
        yield
    finally:
        for router in routers:
            router.decision_hooks.remove(hook)
