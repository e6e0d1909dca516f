"""One training step: gradients, the guard's judgment, the update."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from data.loading.batch import Batch
from moe.model.fp8.delayed_scaling import ScalesBefore
from moe.training.optimization.guards import StepRejectedError, StepRejection
from moe.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step gave, the same on every rank."""

    loss: float
    """Mean training loss: nats per token, in mode dpo nats per pair."""
    tokens: int
    """Tokens that were read, prompts included and padding not."""
    flops: float
    """Training FLOPs of those tokens, of which each sees what the document mask leaves."""
    extras: dict[str, float]
    """Further means of the objective, by name."""
    checksum: int
    """Sum of `Batch.checksum` over the step's batches."""
    grad_norm: float
    """Global gradient norm before clipping; NaN where it was not computed."""
    learning_rate: float
    stop: bool
    """Whether some rank was asked to stop."""
    save_refused: bool = False
    """Whether storage refuses the newest checkpoint."""
    rejection: StepRejection | None = None
    """Why no update was made; None: it was."""


def train_step(
    trainer: Trainer, index: int, *, stop: bool = False, save_refused: bool = False
) -> StepResult:
    """Train step `index` (from 0); a collective call. Flags of any rank reach every rank."""
    learning_rate = trainer.experiment.train.learning_rate_at(index + 1)
    trainer.optimizer.set_rates(learning_rate, trainer.experiment.train.weight_decay)
    trainer.optimizer.zero_grad()
    biases = [bias.clone() for bias in _expert_biases(trainer)]
    scales = trainer.scales_before()
    batches = trainer.loader.step(index)
    with trainer.routing.counting():
        sums = trainer.forward_backward(batches, forward_only=False)
    flags = [float(stop), float(save_refused)]
    stops, refusals, checksum, tokens, flops, *sums_of_all = _all_reduce(
        trainer, batches, sums, flags
    )
    means = trainer.means(sums_of_all)
    loss = means.pop("loss")
    grad_norm, rejection = _update(trainer, loss)
    if rejection is not None:
        _undo_step(trainer, biases, scales)
    return StepResult(
        loss=loss,
        tokens=int(tokens),
        flops=flops,
        extras=means,
        checksum=int(checksum),
        grad_norm=grad_norm,
        learning_rate=learning_rate,
        stop=stops > 0,
        save_refused=refusals > 0,
        rejection=rejection,
    )


def _all_reduce(
    trainer: Trainer, batches: Sequence[Batch], sums: torch.Tensor, flags: Sequence[float]
) -> list[float]:
    """Return over all ranks: `flags`; the batches' checksum, tokens, FLOPs; `sums`."""
    # One rank counts for all that read the same batches. Exact in FP64 up to 2^21 sequences.
    counted = batches if is_model_parallel_leader() else []
    checksum = sum(batch.checksum() for batch in counted)
    tokens = sum(int(batch.lengths.sum()) for batch in counted)
    flops = sum(_training_flops(trainer, batch) for batch in counted)
    own = torch.tensor([*flags, float(checksum), float(tokens), flops], dtype=torch.float64)
    totals = torch.cat([own, sums])
    dist.all_reduce(totals)
    values: list[float] = totals.tolist()
    return values


def _training_flops(trainer: Trainer, batch: Batch) -> float:
    lengths = batch.document_lengths.numpy()
    is_masked = batch.cu_seqlens is not None
    count = trainer.flops.of_documents if is_masked else trainer.flops.of_rows
    return float(count(lengths))


def is_model_parallel_leader() -> bool:
    """Return whether this rank is the first of those that share one replica of the model."""
    return not (
        parallel_state.get_tensor_model_parallel_rank()
        or parallel_state.get_pipeline_model_parallel_rank()
        or parallel_state.get_context_parallel_rank()
    )


def _update(trainer: Trainer, loss: float) -> tuple[float, StepRejection | None]:
    """Update the parameters unless the guard rejects the step; returns gradient norm and why."""
    rejection = trainer.guard.check_loss(loss)
    if rejection is not None:
        return math.nan, rejection
    try:
        _success, grad_norm, _zeros = trainer.optimizer.step()
    except StepRejectedError as error:
        return error.grad_norm, error.rejection
    trainer.guard.accept(loss)
    if trainer.fp8 is not None:
        trainer.fp8.end_step()
    return float(grad_norm), None


def _undo_step(trainer: Trainer, biases: Sequence[torch.Tensor], scales: ScalesBefore) -> None:
    """Undo what forward and backward pass alone have changed; `biases` are those before."""
    scales.restore()
    for bias, before in zip(_expert_biases(trainer), biases, strict=True):
        bias.copy_(before)
    if trainer.fp8 is not None:
        trainer.fp8.discard_step()


def _expert_biases(trainer: Trainer) -> list[torch.Tensor]:
    """Return the buffers that auxiliary-loss-free balancing updates as gradients are completed."""
    modules = (module for chunk in trainer.chunks for module in chunk.module.modules())
    biases = (getattr(module, "expert_bias", None) for module in modules)
    return [bias for bias in biases if bias is not None]
