"""Which experts got how many tokens, counted where the router decides."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from moe.config.model import ModelConfig


class ExpertLoad:
    """Counts tokens per expert and sparse layer, by hooks on this rank's routers."""

    def __init__(self, model: ModelConfig, chunks: Sequence[Any]) -> None:
        self.layers = [i for i, sparse in enumerate(model.sparse_layers) if sparse]
        experts = model.moe.num_experts if model.moe else 0
        self.counts = torch.zeros(len(self.layers), experts, dtype=torch.int64)
        self._counting = False
        for chunk in chunks:
            for layer in chunk.decoder.layers:
                router = getattr(layer.mlp, "router", None)
                if router is not None:
                    row = self.layers.index(layer.layer_number - 1)
                    router.register_forward_hook(self._hook(row))

    def _hook(self, row: int) -> Any:
        def count(_module: Any, _inputs: Any, outputs: tuple[torch.Tensor, torch.Tensor]) -> None:
            if self._counting:
                routing_map = outputs[1]
                self.counts[row] += routing_map.sum(dim=0).to("cpu", torch.int64)

        return count

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is routed inside; evaluation stays outside."""
        self._counting = True
        try:
            yield
        finally:
            self._counting = False

    def take(self) -> torch.Tensor:
        """Return and clear the counts of all ranks, [sparse layers, experts]; collective."""
        total = self.counts.clone()
        self.counts.zero_()
        if total.numel():
            dist.all_reduce(total)
        return total
