"""One rank's part of a training step: megatron-core's schedules, DDP and optimizer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)

from data.loading.batch import Batch
from data.store.manifest import HELD_OUT, TRAIN
from moe.config.experiment import Experiment
from moe.model.build import build_model
from moe.model.fp8_emulation import emulate_fp8
from moe.model.mcore_config import scale_aux_losses
from moe.routing.maps import RoutingMaps
from moe.routing.statistics import RoutingCounter
from moe.training.dpo import PreferenceObjective
from moe.training.guards import Fault, Guard, RefusedUpdate
from moe.training.initial_weights import freeze, load_initial_weights
from moe.training.learning_rate import learning_rate
from moe.training.loader import open_loader
from moe.training.micro_batches import MicroBatches
from moe.training.objectives import Objective, TokenObjective
from moe.training.optimizer import build_optimizer
from parallel.engine.aux_losses import pop_aux_losses
from parallel.engine.start import Engine


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, the same on every rank."""

    loss: float
    """Mean training loss: nats a token, in mode dpo nats a pair."""
    tokens: int
    """Tokens that were read, prompts among them and padding not."""
    extras: dict[str, float]
    """Further means of the mode, by name."""
    checksum: int
    """Sum of `Batch.checksum` over the step's batches."""
    grad_norm: float
    """Global gradient norm before clipping."""
    learning_rate: float
    stop: bool
    """Some rank was asked to stop."""
    fault: Fault | None = None
    """Why no update was made; none: it was."""


class Trainer:
    """One rank's part of a run."""

    def __init__(
        self, experiment: Experiment, engine: Engine, *, weights_follow: bool = False
    ) -> None:
        """Build the model and all that trains it.

        Args:
            experiment: What to train.
            engine: A running engine.
            weights_follow: A checkpoint will be loaded: do not read `train.init`.
        """
        self.experiment, self.engine = experiment, engine
        train = experiment.train
        self.loader, self.held_out = (
            open_loader(experiment, split, rank=engine.dp_rank, ranks=engine.dp)
            for split in (TRAIN, HELD_OUT)
        )
        chunks = build_model(
            experiment.model, experiment.parallel, experiment.precision, seed=train.seed
        )
        if train.init is not None and not weights_follow:
            load_initial_weights(experiment, chunks)
        freeze(train.trainable, chunks)
        self.chunks = [self._wrap(chunk, i) for i, chunk in enumerate(chunks)]
        self.fp8 = None
        if experiment.precision.fp8 == "emulated":
            self.fp8 = emulate_fp8(chunks, experiment.precision)
        self.optimizer = build_optimizer(
            train, experiment.parallel, experiment.precision, self.chunks
        )
        self.guard = Guard(train)
        self._judge_gradients()
        self._connect(chunks[0].config)
        self.routing = RoutingCounter(experiment.model, chunks)
        self.forward = MicroBatches(experiment, engine.device)
        self.routing_maps = RoutingMaps(
            experiment.model, chunks, self.held_out.sources, self.forward.current_sources
        )
        self.objective = self._make_objective()

    def _make_objective(self) -> Objective:
        if self.experiment.train.mode == "dpo":
            return PreferenceObjective(self.experiment, self.forward)
        return TokenObjective()

    def _judge_gradients(self) -> None:
        """Let the guard see the gradient norm between gradients and update."""
        norm_of = self.optimizer.get_grad_norm

        def judged() -> float:
            norm = float(norm_of())
            self.guard.judge_norm(norm)
            return norm

        self.optimizer.get_grad_norm = judged

    def _wrap(self, chunk: Any, index: int) -> DistributedDataParallel:
        config = DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=self.experiment.parallel.distributed_optimizer,
            overlap_grad_reduce=self.experiment.parallel.overlap_grad_reduce,
            overlap_param_gather=self.experiment.parallel.overlap_param_gather,
        )
        return DistributedDataParallel(chunk.config, config, chunk, disable_bucketing=index > 0)

    def _connect(self, config: Any) -> None:
        """Tell the schedules how this optimizer scales losses and completes gradients."""
        config.grad_scale_func = self.optimizer.scale_loss
        config.finalize_model_grads_func = finalize_model_grads
        config.no_sync_func = [chunk.no_sync for chunk in self.chunks]
        if len(self.chunks) == 1:
            config.no_sync_func = config.no_sync_func[0]

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step on one data-parallel rank."""
        train = self.experiment.train
        return train.global_batch_size // (train.micro_batch_size * self.engine.dp)

    def forward_backward(self, batches: Sequence[Batch], *, forward_only: bool) -> torch.Tensor:
        """Run one step's micro-batches; returns this rank's sums (see `Measured`)."""
        references = self.objective.references(batches)
        if not forward_only:
            self._scale_aux_losses(batches)
        for chunk in self.chunks:
            if not forward_only:
                chunk.zero_grad_buffer()
            chunk.train(not forward_only)
        items = list(zip(batches, references, strict=True))
        outputs = self.forward.run(
            self.chunks, items, self.objective.measure, forward_only=forward_only
        )
        total = torch.zeros(2 + len(self.objective.extras), dtype=torch.float64)
        if parallel_state.get_tensor_model_parallel_rank() == 0:
            for sums in outputs:
                total += sums.double().cpu()
        return total

    def _scale_aux_losses(self, batches: Sequence[Batch]) -> None:
        """Make router losses means over positions, whatever the main loss is a mean of."""
        if self.experiment.model.moe is None:
            return
        counted = sum(map(self.objective.count, batches))
        share = torch.tensor([counted, sum(batch.tokens.numel() for batch in batches)])
        dist.all_reduce(share)
        scale_aux_losses(self.chunks[0].module.config, float(share[0] / share[1]))

    def step(self, index: int, *, stop: bool = False) -> StepResult:
        """Train step `index` (0-based). `stop` reaches every rank when any rank says it."""
        rate = learning_rate(self.experiment.train, index + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        biases = [bias.clone() for bias in self._expert_biases()]
        batches = self.loader.step(index)
        with self.routing.counting():
            total = self.forward_backward(batches, forward_only=False)
        # Exact in float64 up to 2^21 sequences a step; one rank counts for its replica.
        counted = batches if _leads_replica() else []
        checksum = sum(batch.checksum() for batch in counted)
        tokens = sum(int(batch.lengths.sum()) for batch in counted)
        own = torch.tensor([float(stop), float(checksum), float(tokens)], dtype=torch.float64)
        shared = torch.cat([total, own])
        dist.all_reduce(shared)
        *sums, stops, checksum_sum, tokens_sum = shared.tolist()
        loss = sums[0] / sums[1]
        grad_norm, fault = self._update(loss)
        if fault is not None:
            self._forget_step(biases)
        return StepResult(
            loss=loss,
            tokens=int(tokens_sum),
            extras=self._extras(sums),
            checksum=int(checksum_sum),
            grad_norm=grad_norm,
            learning_rate=rate,
            stop=stops > 0,
            fault=fault,
        )

    def _update(self, loss: float) -> tuple[float, Fault | None]:
        """Update the parameters unless the guard refuses; returns the gradient norm and why."""
        fault = self.guard.judge_loss(loss)
        if fault is not None:
            return math.nan, fault
        try:
            _success, grad_norm, _zeros = self.optimizer.step()
        except RefusedUpdate as refused:
            return refused.grad_norm, refused.fault
        self.guard.accept(loss)
        if self.fp8 is not None:
            self.fp8.end_step()
        return float(grad_norm), None

    def _forget_step(self, biases: Sequence[torch.Tensor]) -> None:
        """Undo what gradients alone have changed."""
        for bias, before in zip(self._expert_biases(), biases, strict=True):
            bias.copy_(before)
        if self.fp8 is not None:
            self.fp8.discard_step()

    def _expert_biases(self) -> list[torch.Tensor]:
        """Return what auxiliary-loss-free balancing changes as gradients are completed."""
        found = (getattr(m, "expert_bias", None) for c in self.chunks for m in c.module.modules())
        return [bias for bias in found if bias is not None]

    def state(self) -> dict[str, Any]:
        """Return what later steps depend on beside parameters and optimizer, as JSON values."""
        fp8 = None if self.fp8 is None else self.fp8.state()
        return {"data": self.loader.state_dict(), "guard": self.guard.state(), "fp8": fp8}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.loader.load_state_dict(state["data"])
        self.guard.load(state.get("guard", ()))
        if self.fp8 is not None and state.get("fp8"):
            self.fp8.load(state["fp8"])

    def settle_parameters(self) -> None:
        """Wait for parameters whose gathering overlaps with the next step; a collective call."""
        if self.experiment.parallel.overlap_param_gather:
            for chunk in self.chunks:
                chunk.start_param_sync(force_sync=True)

    def _extras(self, sums: Sequence[float]) -> dict[str, float]:
        return {n: x / sums[1] for n, x in zip(self.objective.extras, sums[2:], strict=True)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float | None]:
        """Return the held-out `loss` and the mode's further means.

        The loss is None where no held-out batch is whole.
        """
        train = self.experiment.train
        available = self.held_out.num_sequences // train.global_batch_size
        steps = min(available, max(1, train.eval_sequences // train.global_batch_size))
        if steps == 0:
            return {"loss": None}
        total = torch.zeros(2 + len(self.objective.extras), dtype=torch.float64)
        with self.routing_maps.mapping():
            for number in range(steps):
                index = number * available // steps  # spread over all sources
                total += self.forward_backward(self.held_out.step(index), forward_only=True)
        dist.all_reduce(total)
        sums = total.tolist()
        return {"loss": sums[0] / sums[1], **self._extras(sums)}

    def router_losses(self, steps: int = 1) -> dict[str, float | None]:
        """Return mean router losses over sparse layers and the `steps` since the last call.

        None for a dense model. The engine adds up what is recorded between calls.
        """
        model = self.experiment.model
        names: dict[str, float | None] = {"load_balancing_loss": None, "z_loss": None}
        if model.moe is None:
            return names
        layers = model.num_layers + model.mtp_layers
        sparse = sum(model.sparse_layers) + model.mtp_layers
        losses = pop_aux_losses(self.experiment.parallel, self.engine.dp, layers)
        for name, values in losses.items():
            key = "z_loss" if name == "z_loss" else "load_balancing_loss"
            names[key] = float(values.sum()) / sparse / self.micro_batches / steps
        return names

    def close(self) -> None:
        """Stop background work."""
        self.loader.close()
        self.held_out.close()


def _leads_replica() -> bool:
    """Tell whether this rank stands for its replica of the model in counts of samples."""
    return not (
        parallel_state.get_tensor_model_parallel_rank()
        or parallel_state.get_pipeline_model_parallel_rank()
        or parallel_state.get_context_parallel_rank()
    )
