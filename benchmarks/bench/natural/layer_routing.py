"""The routings of a benchmarked MoE layer alone: drawn, recorded, or its own router's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.layer_shape import LayerShape
from benchmarks.bench.natural.replay import Replay
from benchmarks.errors import BenchmarkError


@dataclass(frozen=True, kw_only=True)
class LayerRouting:
    """One way to route a layer's tokens; of natural routing, as one recorded layer did."""

    profile: RoutingProfile
    replay: Replay | None = None
    recorded_layer: int | None = None
    """From 1, as in a recording."""

    def experts(self, shape: LayerShape, repeat: int, rank: int, ranks: int) -> Tensor | None:
        """Return the experts of a repeat's tokens, [T, K]; None: the router decides.

        Drawn ones are the same each time, recorded ones of the next tokens.
        """
        if self.replay is not None and self.recorded_layer is not None:
            start = (repeat * ranks + rank) * shape.tokens
            return self.replay.experts(self.recorded_layer, start, shape.tokens)
        generator = torch.Generator().manual_seed(3 + rank)
        return self.profile.draw_experts(shape.tokens, shape.num_experts, shape.top_k, generator)

    def describe(self, shape: LayerShape, ranks: int) -> dict[str, Any]:
        """Return what a row of the result says of its routing."""
        if self.replay is None or self.recorded_layer is None:
            kind = "forced" if self.profile.is_drawn else self.profile.kind
            return {"routing": str(self.profile), "routing_source": {"kind": kind}}
        source = self.replay.source([], shape.tokens * ranks)
        # One layer stands here, with no number of its own.
        source |= {"recorded_layers": {"0": self.recorded_layer - 1}, "layers_repeat": False}
        return {"routing": str(self.profile), "routing_source": source}


def check_layer_profiles(
    profiles: Sequence[RoutingProfile], replay: Replay | None, shapes: Sequence[LayerShape]
) -> None:
    """Check that a layer alone can be routed as its benchmark says.

    Raises:
        BenchmarkError: Natural routing without a recording, or one of other experts.
    """
    if replay is None and any(profile.kind == "natural" for profile in profiles):
        raise BenchmarkError(
            "--routing natural: a layer alone is not trained: give a recording with --replay, or"
            " write untrained"
        )
    if replay is not None:
        for shape in shapes:
            replay.check_fits(shape.num_experts, shape.top_k)


def layer_routings(profiles: Sequence[RoutingProfile], replay: Replay | None) -> list[LayerRouting]:
    """Return the routings of a layer; natural routing is as each recorded layer's."""
    routings = []
    for profile in dict.fromkeys(profiles):
        if profile.kind != "natural" or replay is None:
            routings.append(LayerRouting(profile=profile))
            continue
        routings += [
            LayerRouting(profile=profile, replay=replay, recorded_layer=layer)
            for layer in sorted(replay.layers)
        ]
    return routings
