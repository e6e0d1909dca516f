"""What memory and time are predicted for: a model, its placement, batch and precision."""

from dataclasses import dataclass

from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize, ModelShape
from parallel.layout.placement import Placement
from parallel.planner.execution import Execution
from parallel.precision.recipes import Precision


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
    """Tokens of the busiest rank's experts over the mean; 1 is even routing."""

    @property
    def layout(self) -> Layout:
        """The layout that is placed."""
        return self.placement.layout

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch on one rank where heads and inner sizes are sharded.

        That is inside attention and feed-forward networks.
        """
        return self.batch.seq_len * self.batch.micro_batch_size // self.layout.cp

    @property
    def residual_tokens(self) -> int:
        """Tokens of one micro-batch on one rank between them: fewer with sequence parallelism."""
        return self.tokens // self.layout.tp if self.layout.sp else self.tokens

    @property
    def routed_tokens(self) -> int:
        """Token copies that the experts of one rank receive of one micro-batch.

        Each rank of the expert-parallel group sends `top_k` copies of each of its tokens and with
        even routing receives as many; ranks of an expert-tensor-parallel group pool theirs.
        """
        kept = min(1.0, self.shape.capacity_factor or 1.0)
        sent = self.residual_tokens * self.shape.top_k * self.layout.expert_tp
        return round(sent * kept * self.expert_imbalance)
