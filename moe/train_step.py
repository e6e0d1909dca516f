"""One rank's part of a training step: megatron-core's schedules, DDP and optimizer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.pipeline_parallel import get_forward_backward_func

from data.batch import Batch
from data.manifest import HELD_OUT, TRAIN
from moe.config.experiment import Experiment
from moe.feed import open_loader
from moe.model import build_model, document_inputs
from moe.model_torch import sequence_positions
from moe.routing import ExpertLoad
from moe.schedule import learning_rate
from moe.train_optimizer import build_optimizer
from parallel.engine import Engine, take_router_losses
from parallel.precision import Precision


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, the same on every rank."""

    loss: float
    """Mean training loss, nats a token."""
    tokens: int
    """Tokens that counted in the loss."""
    grad_norm: float
    """Global gradient norm before clipping."""
    learning_rate: float
    stop: bool
    """Some rank was asked to stop."""


class Trainer:
    """One rank's part of a run."""

    def __init__(self, experiment: Experiment, engine: Engine) -> None:
        self.experiment, self.engine = experiment, engine
        train = experiment.train
        self.loader, self.held_out = (
            open_loader(experiment, split, rank=engine.dp_rank, ranks=engine.dp)
            for split in (TRAIN, HELD_OUT)
        )
        chunks = build_model(
            experiment.model, experiment.parallel, experiment.precision, seed=train.seed
        )
        self.chunks = [self._wrap(chunk, i) for i, chunk in enumerate(chunks)]
        self.optimizer = build_optimizer(
            train, experiment.parallel, experiment.precision, self.chunks
        )
        self._connect(chunks[0].config)
        self.expert_load = ExpertLoad(experiment.model, chunks)
        self.run_schedule = get_forward_backward_func()
        self.progressed: Callable[[], None] = lambda: None
        """Called at every micro-batch."""

    def _wrap(self, chunk: Any, index: int) -> DistributedDataParallel:
        config = DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=self.experiment.parallel.distributed_optimizer,
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
        """Run one step's micro-batches; returns this rank's [loss sum, tokens]."""
        train = self.experiment.train
        for chunk in self.chunks:
            if not forward_only:
                chunk.zero_grad_buffer()
            chunk.train(not forward_only)
        outputs = self.run_schedule(
            forward_step_func=self._forward_step,
            data_iterator=[iter(batches) for _ in self.chunks],
            model=self.chunks,
            num_microbatches=len(batches),
            seq_length=train.seq_len,
            micro_batch_size=train.micro_batch_size,
            forward_only=forward_only,
        )
        total = torch.zeros(2, dtype=torch.float64)
        if parallel_state.get_tensor_model_parallel_rank() == 0:
            for output in outputs:
                total += output["loss"].double().cpu()
        return total

    def _forward_step(self, batches: Iterator[Batch], model: Any) -> tuple[Any, Any]:
        self.progressed()
        return _forward_step(self.engine.device, self.experiment.precision, batches, model)

    def step(self, index: int, *, stop: bool = False) -> StepResult:
        """Train step `index` (0-based). `stop` reaches every rank when any rank says it."""
        rate = learning_rate(self.experiment.train, index + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        with self.expert_load.counting():
            total = self.forward_backward(self.loader.step(index), forward_only=False)
        _success, grad_norm, _zeros = self.optimizer.step()
        shared = torch.cat([total, torch.tensor([float(stop)], dtype=torch.float64)])
        dist.all_reduce(shared)
        loss_sum, tokens, stops = shared.tolist()
        return StepResult(
            loss=loss_sum / tokens,
            tokens=int(tokens),
            grad_norm=float(grad_norm),
            learning_rate=rate,
            stop=stops > 0,
        )

    @torch.no_grad()
    def evaluate(self) -> float | None:
        """Return the held-out loss, nats a token; None where no held-out batch is whole."""
        train = self.experiment.train
        available = self.held_out.num_sequences // train.global_batch_size
        steps = min(available, max(1, train.eval_sequences // train.global_batch_size))
        if steps == 0:
            return None
        total = torch.zeros(2, dtype=torch.float64)
        for index in range(steps):
            total += self.forward_backward(self.held_out.step(index), forward_only=True)
        dist.all_reduce(total)
        return float(total[0] / total[1])

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
        losses = take_router_losses(self.experiment.parallel, self.engine.dp, layers)
        for name, values in losses.items():
            key = "z_loss" if name == "z_loss" else "load_balancing_loss"
            names[key] = float(values.sum()) / sparse / self.micro_batches / steps
        return names

    def describe(self) -> dict[str, Any]:
        """Return what was built: modules, dispatcher, optimizer and number formats in use."""
        layer = next(
            (x for c in self.chunks for x in c.module.decoder.layers if hasattr(x.mlp, "router")),
            None,
        )
        parts = [type(m) for chunk in self.chunks for m in chunk.module.modules()]
        attention = next(m for m in parts if m.__name__.endswith("Attention") and m.__name__ not in
                         ("SelfAttention", "MLASelfAttention"))  # fmt: skip
        return {
            "kernels": self.experiment.precision.kernels,
            "attention": _path(attention),
            "experts": None if layer is None else _path(type(layer.mlp.experts)),
            "dispatcher": None if layer is None else _path(type(layer.mlp.token_dispatcher)),
            "optimizer": _path(type(self._inner_optimizer())),
            "dtype": str(next(self.chunks[0].parameters()).dtype).removeprefix("torch."),
            "device": self.engine.device.type,
        }

    def _inner_optimizer(self) -> Any:
        chained = getattr(self.optimizer, "chained_optimizers", [self.optimizer])
        return chained[0].optimizer

    def close(self) -> None:
        """Stop background work."""
        self.loader.close()
        self.held_out.close()


def _forward_step(
    device: torch.device, precision: Precision, batches: Iterator[Batch], model: Any
) -> tuple[Any, Any]:
    """Run one micro-batch, as megatron-core's schedules ask for it."""
    batch = next(batches)
    documents = document_inputs(batch.cu_seqlens, precision)
    fields = [batch.tokens, batch.labels, batch.loss_mask, batch.position_ids]
    cp = parallel_state.get_context_parallel_world_size()
    if cp > 1:
        length = batch.tokens.shape[1] // cp
        mine = sequence_positions(cp, length)[parallel_state.get_context_parallel_rank()]
        fields = [x[:, mine].contiguous() for x in fields]
    tokens, labels, mask, positions = (x.to(device, non_blocking=True) for x in fields)
    output = model(tokens, positions, labels=labels, loss_mask=mask, **documents)
    return output, partial(_sum_loss, mask)


def _sum_loss(
    mask: torch.Tensor, losses: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Return loss sum, token count, and both detached for the record."""
    loss = (losses.float() * mask).sum()
    count = mask.sum()
    return loss, count.to(torch.int), {"loss": torch.stack([loss.detach(), count])}


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
