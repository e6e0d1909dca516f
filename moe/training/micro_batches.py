"""Micro-batches through a model's chunks, by megatron-core's schedules."""

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
from moe.training.objectives import Measured

Item = tuple[Batch, Tensor | None]
"""A micro-batch and what its objective must know of it."""
Measure = Callable[[Tensor, Tensor, Tensor | None], Measured]
"""Of losses [B, S], loss mask [B, S], and that."""


class MicroBatches:
    """Runs the micro-batches of steps."""

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        self._experiment, self._device = experiment, device
        self.progressed: Callable[[], None] = lambda: None
        """Called at every micro-batch."""
        self.current: Batch | None = None
        """The micro-batch whose forward pass runs, or ran last."""
        # A layer that ran alone in this process leaves a scale of a shape the schedules can't set.
        MoEAuxLossAutoScaler.main_loss_backward_scale = None

    def run(
        self, chunks: Sequence[Any], items: Sequence[Item], measure: Measure, *, forward_only: bool
    ) -> list[Tensor]:
        """Run a step's micro-batches; returns each one's sums, on the last pipeline stage only."""
        train = self._experiment.train
        outputs = get_forward_backward_func()(
            forward_step_func=partial(self._forward_step, measure),
            data_iterator=[iter(items) for _ in chunks],
            model=list(chunks),
            num_microbatches=len(items),
            seq_length=train.seq_len,
            micro_batch_size=train.micro_batch_size,
            forward_only=forward_only,
        )
        return [output["sums"] for output in outputs]

    def current_sources(self) -> Tensor:
        """Return the sources of the sequences that are running, int64 [B]."""
        assert self.current is not None
        return self.current.sources

    def _forward_step(self, measure: Measure, items: Iterator[Item], model: Any) -> tuple[Any, Any]:
        """Run one micro-batch, as megatron-core's schedules ask for it."""
        self.progressed()
        batch, reference = next(items)
        self.current = batch
        documents = document_inputs(batch.cu_seqlens, self._experiment.precision)
        fields = [batch.tokens, batch.labels, batch.loss_mask, batch.position_ids]
        cp = parallel_state.get_context_parallel_world_size()
        if cp > 1:
            length = batch.tokens.shape[1] // cp
            mine = sequence_positions(cp, length)[parallel_state.get_context_parallel_rank()]
            fields = [x[:, mine].contiguous() for x in fields]
        tokens, labels, mask, positions = (x.to(self._device, non_blocking=True) for x in fields)
        output = model(tokens, positions, labels=labels, loss_mask=mask, **documents)
        return output, partial(_measured, measure, mask, reference)


def _measured(
    measure: Measure, mask: Tensor, reference: Tensor | None, losses: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return loss, count and sums in the form that the schedules expect."""
    found = measure(losses, mask, reference)
    return found.loss, found.count.to(torch.int), {"sums": found.sums}
