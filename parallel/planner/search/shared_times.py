"""Seconds that the layouts of a search share: exchanges, whole layers, the ends of a model."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from parallel.layout.model_shape import ModelShape
from parallel.planner.communication_time.expert_exchange import Exchange
from parallel.planner.step.clock import Clock
from parallel.planner.step.ends import embedding, head
from parallel.planner.step.layer import LayerTimes
from parallel.planner.step.seconds import TermSeconds
from parallel.planner.workload import Workload


@dataclass(frozen=True)
class SharedClock(Clock):
    """A clock that times each exchange of tokens once."""

    _exchanges: dict[Hashable, Exchange] = field(default_factory=dict, compare=False)

    def exchange(self, work: Workload) -> Exchange:
        """Return the seconds in which tokens reach their experts' ranks and come back."""
        layout = work.layout
        key = (
            work.residual_tokens, layout.ep, layout.expert_tp, layout.exchange_library,
            work.rank_imbalance,
        )  # fmt: skip
        if key not in self._exchanges:
            self._exchanges[key] = super().exchange(work)
        return self._exchanges[key]


class SharedLayerTimes(LayerTimes):
    """Layer times that know each layer of each way to run it; callers leave them as they are."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._whole: dict[Hashable, TermSeconds] = {}

    def seconds(
        self, work: Workload, *, sparse: bool, window: int | None, exchanges: bool = True
    ) -> TermSeconds:
        """Return the seconds of one layer; arguments as of `LayerTimes`."""
        layout = work.layout
        key = (
            sparse, window, layout.tp, layout.cp, layout.ep, layout.expert_tp,
            work.batch.micro_batch_size, layout.recompute, layout.recompute_modules,
            layout.overlap_experts, layout.exchange_library, exchanges,
        )  # fmt: skip
        if key not in self._whole:
            self._whole[key] = super().seconds(
                work, sparse=sparse, window=window, exchanges=exchanges
            )
        return self._whole[key]


Kind = tuple[bool, int | None]
"""What a layer's time depends on: whether it is sparse, and its attention's window."""


@dataclass(frozen=True)
class ModelSeconds:
    """Seconds of one micro-batch, forward and backward, by where they arise."""

    by_kind: Mapping[Kind, float]
    """Seconds of one layer."""
    embedding: float
    head: float
    """Final norm, LM head, loss, and multi-token prediction."""
    step: float = 0.0
    """Seconds of a whole step that no layer explains."""
    layer_step: float = 0.0
    """Seconds that each layer of a rank adds to a step."""


class ModelTimes:
    """Times the parts of a model; what layouts share is timed once."""

    def __init__(self, clock: Clock, layers: LayerTimes) -> None:
        self._clock, self._layers = clock, layers
        self._ends: dict[Hashable, tuple[float, float]] = {}

    def __call__(self, work: Workload, *, exchanges: bool = True) -> ModelSeconds:
        """Return the seconds of each kind of layer and of both ends of a job.

        Without `exchanges`, as if tokens took no time to reach their experts' ranks.
        """
        shape = work.shape
        kinds = layer_kinds(shape)
        by_kind = {
            (sparse, window): _both(
                self._layers.seconds(work, sparse=sparse, window=window, exchanges=exchanges)
            )
            for sparse, window in dict.fromkeys(kinds)
        }
        first, last = self._both_ends(work)
        return ModelSeconds(
            by_kind=by_kind,
            embedding=first,
            head=(1 + shape.mtp_layers) * last + shape.mtp_layers * by_kind[kinds[-1]],
            step=self._clock.parameters.step_seconds,
            layer_step=self._clock.parameters.layer_step_seconds,
        )

    def _both_ends(self, work: Workload) -> tuple[float, float]:
        """Return the seconds of the embedding and of the head, which no expert changes."""
        layout = work.layout
        key = (layout.tp, layout.cp, work.batch.micro_batch_size)
        if key not in self._ends:
            self._ends[key] = _both(embedding(self._clock, work)), _both(head(self._clock, work))
        return self._ends[key]


@lru_cache(maxsize=4)
def layer_kinds(shape: ModelShape) -> tuple[Kind, ...]:
    """Return the kind of each layer."""
    return tuple(zip(shape.sparse_layers, shape.windows, strict=True))


def _both(seconds: TermSeconds) -> float:
    return seconds.forward_seconds + seconds.backward_seconds
