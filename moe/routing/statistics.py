"""What the routers decide, counted where they decide and summed over ranks.

Shapes: L sparse layers, T tokens, E experts, K experts a token, B sequences, N sources.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moe.config.model import ModelConfig
from moe.model.routing_rule import Decision, router_probabilities


@dataclass(frozen=True)
class Routing:
    """The routing of some steps, over all ranks."""

    layers: list[int]
    """Numbers of the sparse layers, from 0."""
    counts: Tensor
    """Tokens that each expert got, int64 [L, E]."""
    sums: Tensor
    """Per layer: tokens, choices dropped, entropy of each token's routing (nats), square of the
    logits' log-sum-exp; float64 [L, 4]."""

    def as_json(self) -> dict[str, list[Any]]:
        """Return one number a layer for each measure.

        `load_entropy` and `token_entropy` are shares of the logarithm of E: of the load over
        experts (1: even) and of the router's probabilities for one token (0: sure); `drop_rate`
        is a share of all choices, `router_z` the mean that the z-loss is a multiple of
        (arXiv:2202.08906, eq. 5).
        """
        tokens, dropped, entropy, z = self.sums.T
        load = self.counts.double()
        largest = math.log(self.counts.shape[1])
        shares = load / load.sum(dim=1, keepdim=True).clamp(min=1)
        return {
            "layers": self.layers,
            "load_entropy": (torch.special.entr(shares).sum(dim=1) / largest).tolist(),
            "max_over_mean": (load.amax(dim=1) / load.mean(dim=1).clamp(min=1e-9)).tolist(),
            "token_entropy": (entropy / tokens.clamp(min=1) / largest).tolist(),
            "drop_rate": (dropped / (dropped + load.sum(dim=1)).clamp(min=1)).tolist(),
            "router_z": (z / tokens.clamp(min=1)).tolist(),
        }


class RoutingCounter:
    """Counts the decisions of this rank's routers while it is told to."""

    def __init__(self, model: ModelConfig, chunks: Sequence[Any]) -> None:
        self.layers = sparse_layers(model)
        self._rule = model.moe
        self._experts = model.moe.num_experts if model.moe else 0
        self._routers = routers_of(chunks)
        self._totals = torch.zeros(len(self.layers), self._experts + 4, dtype=torch.float64)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is routed inside; evaluation stays outside."""
        with watching(self._routers, self._count):
            yield

    def _count(self, layer_number: int, decision: Decision) -> None:
        # What is recomputed passes again inside the backward pass, where that reaches it at all.
        if torch._C._current_graph_task_id() < 0:
            self._add(layer_number, decision)

    @torch.no_grad()
    def _add(self, layer_number: int, decision: Decision) -> None:
        assert self._rule is not None
        logits = decision.logits.float()
        self._totals = self._totals.to(logits.device)
        row = self._totals[self.layers.index(layer_number - 1)]
        row.scatter_add_(0, decision.experts.flatten(), decision.kept.flatten().double())
        probabilities = router_probabilities(logits, self._rule)
        row[-4] += len(logits)
        row[-3] += (~decision.kept).sum()
        row[-2] += torch.special.entr(probabilities).sum()
        row[-1] += logits.logsumexp(dim=-1).square().sum()

    def take(self) -> Routing:
        """Return and clear what all ranks have counted; collective."""
        totals = self._totals.cpu()
        self._totals = torch.zeros_like(self._totals)
        if totals.numel():
            dist.all_reduce(totals)
        return Routing(self.layers, totals[:, : self._experts].long(), totals[:, self._experts :])


class RoutingMaps:
    """Who gets whose tokens: load by source, and which experts are chosen together."""

    def __init__(
        self,
        model: ModelConfig,
        chunks: Sequence[Any],
        sources: Sequence[str],
        current: Callable[[], Tensor],
    ) -> None:
        """Prepare maps.

        Args:
            model: Its configuration.
            chunks: This rank's part of it.
            sources: Names of the sources.
            current: Returns the sources of the sequences that are running, int64 [B].
        """
        self.layers = sparse_layers(model)
        self.sources = list(sources)
        self._current = current
        self._routers = routers_of(chunks)
        experts = model.moe.num_experts if model.moe else 0
        self._by_source = torch.zeros(len(self.layers), len(sources), experts, dtype=torch.float64)
        self._together = torch.zeros(len(self.layers), experts, experts, dtype=torch.float64)

    @contextmanager
    def mapping(self) -> Iterator[None]:
        """Map what is routed inside."""
        with watching(self._routers, self._map):
            yield

    @torch.no_grad()
    def _map(self, layer_number: int, decision: Decision) -> None:
        row, logits = self.layers.index(layer_number - 1), decision.logits
        chosen_te = torch.zeros(logits.shape, device=logits.device).scatter(1, decision.experts, 1)
        self._together[row] += (chosen_te.T @ chosen_te).double().cpu()
        sources = self._current().to(logits.device)
        # Routers see tokens in the order of positions, all sequences of a batch at each.
        of_tokens = sources.repeat(len(logits) // len(sources))
        counts = torch.zeros(len(self.sources), logits.shape[1], device=logits.device)
        self._by_source[row] += counts.index_add(0, of_tokens, chosen_te).double().cpu()

    def take(self) -> dict[str, Any] | None:
        """Return and clear the maps of all ranks as JSON values; collective.

        None for a dense model. `counts` are choices [L][N][E], `together` tokens that chose both
        experts [L][E][E]; its diagonal is each expert's own.
        """
        if not self.layers:
            return None
        for part in (self._by_source, self._together):
            dist.all_reduce(part)
        maps = {
            "layers": self.layers,
            "sources": self.sources,
            "counts": self._by_source.long().tolist(),
            "together": self._together.long().tolist(),
        }
        self._by_source.zero_()
        self._together.zero_()
        return maps


def sparse_layers(model: ModelConfig) -> list[int]:
    """Return the numbers of the sparse layers, from 0."""
    return [i for i, sparse in enumerate(model.sparse_layers) if sparse]


def routers_of(chunks: Sequence[Any]) -> list[Any]:
    """Return the routers of this rank's decoder layers, in order."""
    layers = [layer for chunk in chunks for layer in chunk.decoder.layers]
    return [layer.mlp.router for layer in layers if hasattr(layer.mlp, "router")]


@contextmanager
def watching(routers: Sequence[Any], watch: Callable[[int, Decision], None]) -> Iterator[None]:
    """Show every decision to `watch`, with the layer's number from 1."""
    for router in routers:
        router.watchers.append(watch)
    try:
        yield
    finally:
        for router in routers:
            router.watchers.remove(watch)
