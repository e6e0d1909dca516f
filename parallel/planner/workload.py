"""What memory and time are predicted for: a model, its placement, batch and precision."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.layout.placement import Placement
from parallel.planner.execution import Execution
from parallel.precision.recipes import Precision


class LayerKind(NamedTuple):
    """What layers can differ in."""

    sparse: bool
    """Whether it has routed experts."""
    in_fp8: bool
    """Whether its matrix products run in FP8, where any do."""


@lru_cache(maxsize=16)
def layer_kinds(
    shape: ModelShape, layout: Layout, precision: Precision
) -> tuple[tuple[Counter[LayerKind], ...], ...]:
    """Return how many layers of each kind a chunk has, indexed [stage][chunk].

    Multi-token-prediction layers are in the last chunk, beside these.
    """
    first, last = precision.fp8_keep_first, shape.num_layers - precision.fp8_keep_last
    kinds = [
        LayerKind(sparse, first <= layer < last) for layer, sparse in enumerate(shape.sparse_layers)
    ]
    return tuple(
        tuple(Counter(kinds[layers.start : layers.stop]) for layers in chunks)
        for chunks in layout.chunk_layers(shape.num_layers)
    )


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One training job as the planner sees it."""

    shape: ModelShape
    placement: Placement
    """Of a layout without faults (`layout_faults`)."""
    batch: BatchSize
    precision: Precision
    """Parameter precision, FP8 recipe and kernel set."""
    execution: Execution = Execution()
    """How the layout is run."""
    expert_imbalance: float = 1.0
    """Tokens of the busiest rank's experts over the mean, as asked for; 1 is even routing."""

    @property
    def layout(self) -> Layout:
        """The layout that is placed."""
        return self.placement.layout

    @cached_property
    def layer_kinds(self) -> tuple[tuple[Counter[LayerKind], ...], ...]:
        """Layers of each kind, indexed [stage][chunk] (`layer_kinds`)."""
        return layer_kinds(self.shape, self.layout, self.precision)

    @property
    def last_kind(self) -> LayerKind:
        """The kind of the last layer, and of multi-token-prediction layers."""
        shape, precision = self.shape, self.precision
        return LayerKind(shape.sparse_layers[-1], not precision.fp8_keep_last)

    @cached_property
    def tokens(self) -> int:
        """Tokens of one micro-batch on one rank where heads and inner sizes are sharded.

        That is inside attention and feed-forward networks.
        """
        return self.batch.seq_len * self.batch.micro_batch_size // self.layout.cp

    @cached_property
    def residual_tokens(self) -> int:
        """Tokens of one micro-batch on one rank between them: fewer with sequence parallelism."""
        return self.tokens // self.layout.tp if self.layout.sp else self.tokens

    @property
    def kv_heads(self) -> int:
        """Key-value heads on one rank; with more ranks than heads each holds one."""
        return max(1, self.shape.num_kv_heads // self.layout.tp)

    @cached_property
    def rank_imbalance(self) -> float:
        """`expert_imbalance` as far as this layout allows it.

        A rank gets at most all copies, `ep` times the mean, and an expert at most every token.
        """
        most = self.shape.num_experts / max(1, self.shape.top_k)
        return max(1.0, min(self.expert_imbalance, self.layout.ep, most))

    @cached_property
    def routed_tokens(self) -> int:
        """Token copies that the experts of one rank receive of one micro-batch.

        Each rank of the expert-parallel group sends `top_k` copies of each of its tokens and with
        even routing receives as many; ranks of an expert-tensor-parallel group pool theirs.
        """
        kept = min(1.0, self.shape.capacity_factor or 1.0)
        sent = self.residual_tokens * self.shape.top_k * self.layout.expert_tp
        return round(sent * kept * self.rank_imbalance)
