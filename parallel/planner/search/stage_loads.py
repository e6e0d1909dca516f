"""What each stage of a candidate holds, counted once for all candidates with the same stages."""

from collections.abc import Hashable, Sequence
from typing import Generic, NamedTuple, TypeVar

from parallel.planner.search.stages import Stages

Kind = TypeVar("Kind", bound=Hashable)
Counts = tuple[int, ...]
"""Layers of each kind; of loads, then embeddings and heads."""


class StageLoad(NamedTuple):
    """What a step of one micro-batch waits for at a stage, and runs there."""

    waits: Counts
    """What runs before the stage's first pass."""
    runs: Counts
    """What all its chunks run."""


class StageLoads(Generic[Kind]):
    """Counts the layers of a model's stages."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        """Take the kind of each layer."""
        self.kinds = tuple(dict.fromkeys(kinds))
        self.num_layers = len(kinds)
        before = [(0,) * len(self.kinds)]
        for kind in kinds:
            before.append(_sum(before[-1], tuple(int(kind == each) for each in self.kinds)))
        self._before = before
        self.whole: Counts = (*before[-1], 1, 1)
        self._slowest: dict[Stages, tuple[tuple[StageLoad, ...], int]] = {}
        self._chunks: dict[tuple[Stages, int], list[Counts]] = {}

    def chunks(self, stages: Stages, stage: int) -> list[Counts]:
        """Return the layers of each chunk of a stage."""
        key = (stages, stage)
        if key not in self._chunks:
            bounds, before = stages.chunk_bounds(self.num_layers), self._before
            self._chunks[key] = [
                tuple(
                    last - first
                    for first, last in zip(
                        before[bounds[number]], before[bounds[number + 1]], strict=True
                    )
                )
                for number in range(stage, stages.pp * stages.vpp, stages.pp)
            ]
        return self._chunks[key]

    def slowest(self, stages: Stages) -> tuple[tuple[StageLoad, ...], int]:
        """Return the loads of which one bounds a step, and the most layers of any stage.

        Of stages that run the same, the last waits longest.
        """
        if stages not in self._slowest:
            loads: dict[Counts, StageLoad] = {}
            waits = (0,) * (len(self.kinds) + 2)
            most = 0
            for stage in range(stages.pp):
                chunks = self.chunks(stages, stage)
                is_first, is_last = stage == 0, stage == stages.pp - 1
                layers = tuple(map(sum, zip(*chunks, strict=True)))
                runs = (*layers, int(is_first), int(is_last))
                loads[runs] = StageLoad(waits, runs)
                waits = _sum(waits, (*chunks[0], int(is_first), 0))
                most = max(most, sum(layers))
            self._slowest[stages] = tuple(loads.values()), most
        return self._slowest[stages]


def _sum(one: Counts, other: Counts) -> Counts:
    return tuple(a + b for a, b in zip(one, other, strict=True))
