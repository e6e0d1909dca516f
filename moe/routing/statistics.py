"""Statistics of routing decisions: load, drops and entropy, summed over ranks.

Padding is routed nowhere and counts in none of them.

Shapes: L sparse layers, E experts.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moe.config.model import ModelConfig
from moe.model.routing_rule import RoutingDecision, router_probabilities
from moe.routing.decision_hooks import decision_hook, routers_of, sparse_layers


@dataclass(frozen=True)
class RoutingStatistics:
    """Statistics of the routing of some steps, summed over all ranks."""

    layers: list[int]
    """Numbers of the sparse layers, from 0."""
    counts: Tensor
    """Tokens that each expert received, int64 [L, E]."""
    sums: Tensor
    """Per layer: tokens, dropped assignments, entropy of each token's routing (nats), squared
    log-sum-exp of the logits; float64 [L, 4]."""

    def as_json(self) -> dict[str, list[Any]]:
        """Return one number per layer for each statistic.

        `load_entropy` and `token_entropy` are fractions of log(E): the entropy of the load over
        experts (1: even) and of the router's probabilities for one token (0: certain).
        `max_over_mean` is the load of the busiest expert over the mean, `drop_rate` a fraction of
        all assignments, and `router_z` the mean that the z-loss is a multiple of
        (arXiv:2202.08906, eq. 5).
        """
        tokens, dropped, entropy, z = self.sums.T
        load = self.counts.double()
        largest = math.log(self.counts.shape[1])
        fractions = load / load.sum(dim=1, keepdim=True).clamp(min=1)
        return {
            "layers": self.layers,
            "load_entropy": (torch.special.entr(fractions).sum(dim=1) / largest).tolist(),
            "max_over_mean": (load.amax(dim=1) / load.mean(dim=1).clamp(min=1e-9)).tolist(),
            "token_entropy": (entropy / tokens.clamp(min=1) / largest).tolist(),
            "drop_rate": (dropped / (dropped + load.sum(dim=1)).clamp(min=1)).tolist(),
            "router_z": (z / tokens.clamp(min=1)).tolist(),
        }


class RoutingCounter:
    """Counts the decisions of this rank's routers inside `counting()`."""

    def __init__(self, model: ModelConfig, chunks: Sequence[Any]) -> None:
        self.layers = sparse_layers(model)
        self._rule = model.moe
        self._experts = model.moe.num_experts if model.moe else 0
        self._routers = routers_of(chunks)
        self._totals = torch.zeros(len(self.layers), self._experts + 4, dtype=torch.float64)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is routed inside the block; evaluation stays outside."""
        with decision_hook(self._routers, self._count):
            yield

    def _count(self, layer_number: int, decision: RoutingDecision) -> None:
        # Recomputation routes the same tokens again, inside the backward pass: do not count twice.
        if torch._C._current_graph_task_id() < 0:
            self._add(layer_number, decision)

    @torch.no_grad()
    def _add(self, layer_number: int, decision: RoutingDecision) -> None:
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

    def pop(self) -> RoutingStatistics:
        """Return and clear the counts, summed over all ranks; collective."""
        totals = self._totals.cpu()
        self._totals = torch.zeros_like(self._totals)
        if totals.numel():
            dist.all_reduce(totals)
        counts, sums = totals[:, : self._experts].long(), totals[:, self._experts :]
        return RoutingStatistics(self.layers, counts, sums)
