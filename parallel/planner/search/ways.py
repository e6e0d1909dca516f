"""Ways to run layouts of the same sizes: what is recomputed, and how tokens are exchanged."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Protocol

from parallel.layout.placement import place
from parallel.planner.search.candidates import Candidate, Sizes
from parallel.planner.search.choices import Choice, exchanges, recomputations
from parallel.planner.search.least_memory import LeastMemory, Saved, saved_bytes
from parallel.planner.search.shared_times import ModelSeconds, layer_kinds
from parallel.planner.search.stage_bound import StageBound
from parallel.planner.search.stage_loads import StageLoads
from parallel.planner.workload import Workload

WITHOUT = 0
"""Of `recomputations`, the one that recomputes nothing."""


class TimeModel(Protocol):
    """Seconds of a model's parts."""

    def __call__(self, work: Workload, *, exchanges: bool = True) -> ModelSeconds:
        """Return more where something is recomputed, and less without exchanges."""


@dataclass(frozen=True)
class Way:
    """One way to run some sizes."""

    choice: Choice
    """Fields of `Layout`."""
    bound: StageBound

    def holds_less(self, other: "Way") -> bool:
        """Whether it holds less than another way to exchange tokens.

        Pairs hold a pass more in flight, and libraries hold buffers.
        """
        mine, others = self._holds, other._holds
        return mine != others and all(a <= b for a, b in zip(mine, others, strict=True))

    @property
    def _holds(self) -> tuple[bool, bool]:
        return self.choice["overlap_experts"], self.choice["dispatcher"] == "flex"


class Ways:
    """The ways to run one model on one card, timed once: searches on any number share them."""

    def __init__(self, work: Workload, model: TimeModel, libraries: Sequence[str]) -> None:
        """Take a job on one card, and what may exchange tokens between experts' ranks.

        The job's layout says what a search leaves as it is.
        """
        self.recomputations = recomputations(work.shape, has_te=work.precision.kernels == "te")
        self.least = LeastMemory(work)
        self._work, self._model, self._libraries = work, model, libraries
        self._loads = StageLoads(layer_kinds(work.shape))
        self._bounds: dict[Sizes, StageBound] = {}
        self._ways: dict[Hashable, tuple[Way, ...]] = {}
        self._timed: dict[Hashable, Way] = {}
        self._saved: dict[Hashable, Saved] = {}

    def bound(self, sizes: Sizes) -> StageBound:
        """Return the bound of all ways: nothing is recomputed, and tokens need not travel."""
        if sizes not in self._bounds:
            job = self._job(sizes, self.recomputations[WITHOUT])
            seconds = self._model(job, exchanges=False)
            self._bounds[sizes] = StageBound(seconds, self._loads)
        return self._bounds[sizes]

    def least_seconds(self, deepest: Candidate, global_batch_size: int) -> float:
        """Return seconds that no candidate of the same sizes undercuts.

        Args:
            deepest: Of them, the one of most stages: as many ranks share each micro-batch on any
                number.
            global_batch_size: Sequences a step.
        """
        pp = deepest.stages.pp
        passes = deepest.micro_batches(global_batch_size) / pp
        return self.bound(deepest.sizes).of_mean_stages(pp, passes)

    def fastest_first(self, sizes: Sizes, recomputation: int, *, paired: bool) -> tuple[Way, ...]:
        """Return the ways to exchange tokens by the seconds of their layers.

        Args:
            sizes: Of the layout.
            recomputation: Number of the way to recompute.
            paired: Whether stages allow that a forward runs beside a backward pass.
        """
        key = (sizes, recomputation, paired)
        if key not in self._ways:
            recompute = self.recomputations[recomputation]
            choices = exchanges(
                self._work.shape, self._libraries, sizes, recompute, can_pair=paired
            )
            ways = [self._way(sizes, recomputation, exchange) for exchange in choices]
            self._ways[key] = tuple(sorted(ways, key=lambda way: way.bound.total))
        return self._ways[key]

    def saved_bytes(self, sizes: Sizes, recomputation: int) -> Saved:
        """Return the least bytes that layers save; no exchange changes them."""
        key = (sizes, recomputation)
        if key not in self._saved:
            self._saved[key] = saved_bytes(self._job(sizes, self.recomputations[recomputation]))
        return self._saved[key]

    def _way(self, sizes: Sizes, recomputation: int, exchange: Choice) -> Way:
        key = (sizes, recomputation, *exchange.values())
        if key not in self._timed:
            choice = self.recomputations[recomputation] | exchange
            seconds = self._model(self._job(sizes, choice))
            self._timed[key] = Way(choice, StageBound(seconds, self._loads))
        return self._timed[key]

    def _job(self, sizes: Sizes, choice: Choice) -> Workload:
        """Return a job of these sizes on one stage, of as few cards as it takes.

        Its layout is not validated: `candidates` yields legal sizes alone, thousands of them.
        """
        tp, cp, ep, etp, micro_batch_size = sizes
        size = {"tp": tp, "sp": tp > 1, "cp": cp, "ep": ep, "etp": etp}
        layout = self._work.layout.model_copy(update=size | choice)
        return replace(
            self._work,
            placement=place(layout, lcm(tp * cp, ep * etp)),
            batch=replace(self._work.batch, micro_batch_size=micro_batch_size),
        )
