"""Preference tuning: DPO (arXiv:2305.18290) against the frozen model that training started from."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from data.loading.batch import Batch
from moe.config.experiment import Experiment
from moe.model.build import build_model
from moe.training.objective.micro_batches import MicroBatchRunner
from moe.training.objective.objectives import DPO_EXTRAS, MicroBatchLoss, answer_log_probs, dpo_loss
from moe.training.startup.initial_weights import load_initial_weights
from parallel.precision.recipes import Precision


class DpoObjective:
    """The chosen answer of each pair gains on the rejected one, relative to the reference."""

    extras: tuple[str, ...] = DPO_EXTRAS

    def __init__(self, experiment: Experiment, runner: MicroBatchRunner) -> None:
        """Build the reference model in the run's own layout.

        Without FP8: delayed scaling would give it a state, which no checkpoint holds.
        """
        self._runner = runner
        self._beta = experiment.train.preference_beta
        precision = experiment.precision
        self._reference: list[Any] = build_model(
            experiment.model,
            experiment.parallel,
            Precision(kernels=precision.kernels, dtype=precision.dtype),
            seed=0,
        )
        load_initial_weights(experiment, self._reference)
        for chunk in self._reference:
            chunk.requires_grad_(False).eval()

    def count(self, batch: Batch) -> float:
        """Return the pairs."""
        return len(batch.tokens) / 2

    @torch.no_grad()
    def reference_log_probs(self, batches: Sequence[Batch]) -> Sequence[Tensor | None]:
        """Return the reference's log-probabilities of answers, [B]; on the last pipeline stage."""
        items = [(batch, None) for batch in batches]
        log_probs = self._runner.run(self._reference, items, _score_answers, forward_only=True)
        return log_probs or [None] * len(batches)

    def loss(
        self, losses_bs: Tensor, mask_bs: Tensor, reference_b: Tensor | None
    ) -> MicroBatchLoss:
        """Return the DPO loss of a micro-batch's pairs."""
        assert reference_b is not None
        return dpo_loss(losses_bs, mask_bs, reference_b, self._beta)


def _score_answers(losses_bs: Tensor, mask_bs: Tensor, _: Tensor | None) -> MicroBatchLoss:
    """Return answers' log-probabilities in place of a loss's sums."""
    log_probs_b = answer_log_probs(losses_bs, mask_bs)
    return MicroBatchLoss(loss=log_probs_b.sum(), count=mask_bs.sum(), sums=log_probs_b)
