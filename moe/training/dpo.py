"""Preference tuning: DPO (arXiv:2305.18290) against the frozen model that training began with."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from data.loading.batch import Batch
from moe.config.experiment import Experiment
from moe.model.build import build_model
from moe.training.initial_weights import load_initial_weights
from moe.training.micro_batches import MicroBatches
from moe.training.objectives import PREFERENCE_EXTRAS, Measured, answer_scores, preference


class PreferenceObjective:
    """The chosen answer of a pair shall gain on the rejected one, seen from the reference."""

    extras: tuple[str, ...] = PREFERENCE_EXTRAS

    def __init__(self, experiment: Experiment, micro_batches: MicroBatches) -> None:
        """Build the reference under the run's own layout."""
        self._micro_batches = micro_batches
        self._beta = experiment.train.preference_beta
        self._reference: list[Any] = build_model(
            experiment.model, experiment.parallel, experiment.precision, seed=0
        )
        load_initial_weights(experiment, self._reference)
        for chunk in self._reference:
            chunk.requires_grad_(False).eval()

    def count(self, batch: Batch) -> float:
        """Return the pairs."""
        return len(batch.tokens) / 2

    @torch.no_grad()
    def references(self, batches: Sequence[Batch]) -> Sequence[Tensor | None]:
        """Return what the reference gives each answer, nats, [B] on the last pipeline stage."""
        items = [(batch, None) for batch in batches]
        found = self._micro_batches.run(self._reference, items, _score, forward_only=True)
        return found or [None] * len(batches)

    def measure(self, losses_bs: Tensor, mask_bs: Tensor, reference: Tensor | None) -> Measured:
        """Return the DPO loss of a micro-batch's pairs."""
        assert reference is not None
        return preference(losses_bs, mask_bs, reference, self._beta)


def _score(losses_bs: Tensor, mask_bs: Tensor, _: Tensor | None) -> Measured:
    scores = answer_scores(losses_bs, mask_bs)
    return Measured(loss=scores.sum(), count=mask_bs.sum(), sums=scores)
