"""What a step learns: from the losses of tokens, or from which of two answers is preferred.

Shapes: B sequences, S tokens of each on this rank (under context parallelism a part of them).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from torch import Tensor

from data.loading.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one micro-batch gives."""

    loss: Tensor
    """Sum over what is learned from; its gradient counts."""
    count: Tensor
    """What that sum is divided by, summed over the step: tokens, or pairs."""
    sums: Tensor
    """For the record, FP32: loss, count, and then one for each of the `extras`."""


class Objective(Protocol):
    """One of the modes of training."""

    extras: tuple[str, ...]
    """Further means that the record gets, by name."""

    def count(self, batch: Batch) -> float:
        """Return what a batch's loss will be divided by."""

    def references(self, batches: Sequence[Batch]) -> Sequence[Tensor | None]:
        """Return what must be known of each batch before the model sees it; a collective call."""

    def measure(self, losses_bs: Tensor, mask_bs: Tensor, reference: Tensor | None) -> Measured:
        """Return a micro-batch's loss from its tokens' losses (nats) and which of them count."""


class TokenObjective:
    """The mean loss of the tokens that count: of text, or of answers alone."""

    extras: tuple[str, ...] = ()

    def count(self, batch: Batch) -> float:
        """Return the tokens that count."""
        return float(batch.loss_mask.sum())

    def references(self, batches: Sequence[Batch]) -> Sequence[Tensor | None]:
        """Nothing need be known."""
        return [None] * len(batches)

    def measure(self, losses_bs: Tensor, mask_bs: Tensor, reference: Tensor | None) -> Measured:
        """Sum the losses of tokens that count."""
        assert reference is None
        loss, count = (losses_bs.float() * mask_bs).sum(), mask_bs.sum()
        return Measured(loss=loss, count=count, sums=torch.stack([loss.detach(), count]))


def answer_scores(losses_bs: Tensor, mask_bs: Tensor) -> Tensor:
    """Return the log-probability of each sequence's answer, nats, [B]; no gradient."""
    scores = -(losses_bs.detach().float() * mask_bs).sum(dim=1)
    if parallel_state.get_context_parallel_world_size() > 1:
        torch.distributed.all_reduce(scores, group=parallel_state.get_context_parallel_group())
    return scores


def preference(losses_bs: Tensor, mask_bs: Tensor, reference_b: Tensor, beta: float) -> Measured:
    """Return the DPO loss of pairs (arXiv:2305.18290, eq. 7): even rows chosen, odd ones rejected.

    `beta` times a log-ratio is the reward of eq. 5. The loss returned has the gradient of the
    stated one, but is linear in this rank's tokens: ranks that share a sequence add up.
    """
    rewards_p2 = beta * (answer_scores(losses_bs, mask_bs) - reference_b).view(-1, 2)
    gap_p = rewards_p2[:, 0] - rewards_p2[:, 1]
    slope_p = beta * torch.sigmoid(-gap_p)
    own_p2 = -(losses_bs.float() * mask_bs).sum(dim=1).view(-1, 2)
    loss = -(slope_p * (own_p2[:, 0] - own_p2[:, 1])).sum()
    sums = torch.stack(
        [
            -F.logsigmoid(gap_p).sum(),
            torch.full_like(gap_p[0], gap_p.numel()),
            (gap_p > 0).float().sum(),
            gap_p.sum(),
            rewards_p2[:, 0].sum(),
        ]
    )
    if parallel_state.get_context_parallel_rank() > 0:
        sums = torch.zeros_like(sums)  # the first of these ranks speaks for all
    return Measured(loss=loss, count=sums[1], sums=sums)


PREFERENCE_EXTRAS = ("reward_accuracy", "reward_margin", "chosen_reward")
"""Share of pairs whose chosen answer has the higher reward; its lead; its own reward (nats)."""
