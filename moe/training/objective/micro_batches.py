"""Micro-batches through a model's chunks, by megatron-core's pipeline schedules."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler
from torch import Tensor

from data.loading.batch import Batch
from moe.config.experiment import Experiment
from moe.model.context_parallel import sequence_positions
from moe.model.document_masks import document_inputs
from moe.training.objective.objectives import MicroBatchLoss

MicroBatch = tuple[Batch, Tensor | None]
"""A batch of one forward pass, and the reference's log-probabilities of its answers."""
LossFunction = Callable[[Tensor, Tensor, Tensor | None], MicroBatchLoss]
"""Of losses [B, S], loss mask [B, S], and those log-probabilities."""


class MicroBatchRunner:
    """Runs the micro-batches of steps, forward and backward."""

    def __init__(
        self,
        experiment: Experiment,
        device: torch.device,
        on_micro_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to run; `on_micro_batch` is called before each forward pass."""
        self._experiment, self._device = experiment, device
        self._on_micro_batch = on_micro_batch
        self._current: Batch | None = None
        # A layer that ran alone in this process leaves a scale of a shape the schedules can't set.
        MoEAuxLossAutoScaler.main_loss_backward_scale = None

    def run(
        self,
        chunks: Sequence[Any],
        micro_batches: Sequence[MicroBatch],
        loss: LossFunction,
        *,
        forward_only: bool,
    ) -> list[Tensor]:
        """Run a step's micro-batches; returns the sums of each, on the last pipeline stage only."""
        train = self._experiment.train
        outputs = get_forward_backward_func()(
            forward_step_func=partial(self._forward_step, loss),
            data_iterator=[iter(micro_batches) for _ in chunks],
            model=list(chunks),
            num_microbatches=len(micro_batches),
            seq_length=train.seq_len,
            micro_batch_size=train.micro_batch_size,
            forward_only=forward_only,
        )
        return [output["sums"] for output in outputs]

    def current_sources(self) -> Tensor:
        """Return the sources of the sequences in the running forward pass, int64 [B]."""
        assert self._current is not None
        return self._current.sources

    def _forward_step(
        self,
        loss: LossFunction,
        micro_batches: Iterator[MicroBatch],
        model: Any,
        *,
        return_schedule_plan: bool = False,
    ) -> tuple[Any, Any]:
        """Run the forward pass of one micro-batch; returns losses and what to do with them.

        Where megatron-core overlaps experts' communication, it asks for the plan that it runs
        itself, in place of the losses.
        """
        self._on_micro_batch()
        batch, reference = next(micro_batches)
        self._current = batch
        documents = document_inputs(batch.cu_seqlens, self._experiment.precision)
        fields = [batch.tokens, batch.labels, batch.loss_mask, batch.position_ids]
        padding = batch.padding_mask
        if padding is not None:
            fields.append(padding)
        cp = parallel_state.get_context_parallel_world_size()
        if cp > 1:
            length = batch.tokens.shape[1] // cp
            own = sequence_positions(cp, length)[parallel_state.get_context_parallel_rank()]
            fields = [x[:, own].contiguous() for x in fields]
        tokens, labels, mask, positions, *padding_mask = (
            x.to(self._device, non_blocking=True) for x in fields
        )
        forward = model.build_schedule_plan if return_schedule_plan else model
        output = forward(
            tokens,
            positions,
            labels=labels,
            loss_mask=mask,
            padding_mask=padding_mask[0] if padding_mask else None,
            **documents,
        )
        return output, partial(_schedule_output, loss, mask, reference)


def _schedule_output(
    loss: LossFunction, mask: Tensor, reference: Tensor | None, losses: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return loss, count and sums in the form that the schedules expect."""
    result = loss(losses, mask, reference)
    return result.loss, result.count.to(torch.int), {"sums": result.sums}
