"""What one rank trains with: data, model, optimizer, guard and statistics, assembled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel

from data.loading.batch import Batch
from data.loading.loader import Loader
from moe.config.experiment import Experiment
from moe.cost.document_flops import DocumentFlops
from moe.model.fp8.delayed_scaling import ScalesBefore
from moe.model.fp8.emulation import Fp8Emulation
from moe.model.fp8.primary_weights import prepare_for_matmuls
from moe.model.mcore_config import scale_aux_losses
from moe.routing.maps import RoutingMaps
from moe.routing.statistics import RoutingCounter
from moe.training.objective.micro_batches import MicroBatchRunner
from moe.training.objective.objectives import Objective
from moe.training.optimization.guards import Guard
from moe.training.optimization.optimizer import GuardedOptimizer
from parallel.engine.start import Engine


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """One rank's share of a run in memory; `build_trainer` makes it."""

    experiment: Experiment
    engine: Engine
    loader: Loader
    """Of the training split."""
    held_out: Loader
    chunks: Sequence[DistributedDataParallel]
    """The model on this rank: one chunk, or `vpp` of an interleaved pipeline."""
    optimizer: GuardedOptimizer
    guard: Guard
    fp8: Fp8Emulation | None
    """Of emulated FP8; None where it is not emulated."""
    runner: MicroBatchRunner
    objective: Objective
    flops: DocumentFlops
    """Counts the work of training batches."""
    routing: RoutingCounter
    """Counts what routers choose in training steps."""
    routing_maps: RoutingMaps
    """Counts what routers choose for held-out text, by source."""

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches of one step on one data-parallel rank."""
        train = self.experiment.train
        return train.global_batch_size // (train.micro_batch_size * self.engine.dp)

    def forward_backward(self, batches: Sequence[Batch], *, forward_only: bool) -> torch.Tensor:
        """Run one step's micro-batches; returns this rank's sums (`MicroBatchLoss.sums`), FP64."""
        references = self.objective.reference_log_probs(batches)
        if not forward_only:
            self._scale_aux_losses(batches)
        for chunk in self.chunks:
            if not forward_only:
                chunk.zero_grad_buffer()
            chunk.train(not forward_only)
        scales = self.scales_before() if forward_only else None
        outputs = self.runner.run(
            self.chunks,
            list(zip(batches, references, strict=True)),
            self.objective.loss,
            forward_only=forward_only,
        )
        if scales is not None:
            scales.restore()
        total = torch.zeros(2 + len(self.objective.extras), dtype=torch.float64)
        if parallel_state.get_tensor_model_parallel_rank() == 0:
            for sums in outputs:
                total += sums.double().cpu()
        return total

    def scales_before(self) -> ScalesBefore:
        """Return Transformer Engine's scales as they are now, to undo what passes do to them."""
        return ScalesBefore([chunk.module for chunk in self.chunks])

    def _scale_aux_losses(self, batches: Sequence[Batch]) -> None:
        """Make router losses means over tokens, whatever the main loss is a mean of."""
        if self.experiment.model.moe is None:
            return
        counted = sum(map(self.objective.count, batches))
        totals = torch.tensor([counted, sum(float(batch.lengths.sum()) for batch in batches)])
        dist.all_reduce(totals)
        scale_aux_losses(self.chunks[0].module.config, float(totals[0] / totals[1]))

    def means(self, sums: Sequence[float]) -> dict[str, float]:
        """Return `loss` and the objective's extras by name, from sums over all ranks."""
        names = ("loss", *self.objective.extras)
        values = (sums[0], *sums[2:])
        return {name: value / sums[1] for name, value in zip(names, values, strict=True)}

    def wait_for_param_gather(self) -> None:
        """Wait for parameters whose gathering overlaps with the next step; a collective call."""
        if self.experiment.parallel.overlap_param_gather:
            for chunk in self.chunks:
                chunk.start_param_sync(force_sync=True)
                prepare_for_matmuls(chunk)

    def state(self) -> dict[str, Any]:
        """Return what later steps depend on beside parameters and optimizer, as JSON values."""
        fp8 = None if self.fp8 is None else self.fp8.state()
        return {"data": self.loader.state_dict(), "guard": self.guard.state(), "fp8": fp8}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        self.loader.load_state_dict(state["data"])
        self.guard.load(state.get("guard") or ())
        if self.fp8 is not None and state.get("fp8"):
            self.fp8.load(state["fp8"])

    def close(self) -> None:
        """Stop background work."""
        self.loader.close()
        self.held_out.close()
