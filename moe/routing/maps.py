"""Routing maps: expert load by data source, and coactivation of experts.

Shapes: L sparse layers, T tokens, E experts, B sequences, N sources.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moe.config.model import ModelConfig
from moe.model.routing_rule import RoutingDecision
from moe.routing.decision_hooks import decision_hook, routers_of, sparse_layers


class RoutingMaps:
    """Counts, by source, the tokens of each expert, and how often two experts are both chosen."""

    def __init__(
        self,
        model: ModelConfig,
        chunks: Sequence[Any],
        sources: Sequence[str],
        current: Callable[[], Tensor],
    ) -> None:
        """Start from zero.

        Args:
            model: Its configuration.
            chunks: The model chunks of this rank.
            sources: Names of the sources.
            current: Returns the sources of the sequences in the running forward pass, int64 [B].
        """
        self.layers = sparse_layers(model)
        self.sources = list(sources)
        self._current = current
        self._routers = routers_of(chunks)
        experts = model.moe.num_experts if model.moe else 0
        self._load = torch.zeros(len(self.layers), len(sources), experts, dtype=torch.float64)
        self._coactivation = torch.zeros(len(self.layers), experts, experts, dtype=torch.float64)

    @contextmanager
    def mapping(self) -> Iterator[None]:
        """Count what is routed inside the block."""
        with decision_hook(self._routers, self._add):
            yield

    @torch.no_grad()
    def _add(self, layer_number: int, decision: RoutingDecision) -> None:
        row, logits = self.layers.index(layer_number - 1), decision.logits
        chosen_te = torch.zeros(logits.shape, device=logits.device).scatter(1, decision.experts, 1)
        self._coactivation[row] += (chosen_te.T @ chosen_te).double().cpu()
        sources = self._current().to(logits.device)
        positions_t = decision.positions
        if positions_t is None:
            positions_t = torch.arange(len(logits), device=logits.device)
        # All sequences of a batch lie at each place of the sequence.
        source_t = sources[positions_t % len(sources)]
        counts_ne = torch.zeros(len(self.sources), logits.shape[1], device=logits.device)
        self._load[row] += counts_ne.index_add(0, source_t, chosen_te).double().cpu()

    def pop(self) -> dict[str, Any] | None:
        """Return and clear the maps, summed over all ranks, as JSON values; collective.

        None for a dense model. `counts` are assignments [L][N][E]; `together` is coactivation
        [L][E][E], the tokens routed to both experts; its diagonal is each expert's own tokens.
        """
        if not self.layers:
            return None
        for counts in (self._load, self._coactivation):
            dist.all_reduce(counts)
        maps = {
            "layers": self.layers,
            "sources": self.sources,
            "counts": self._load.long().tolist(),
            "together": self._coactivation.long().tolist(),
        }
        self._load.zero_()
        self._coactivation.zero_()
        return maps
