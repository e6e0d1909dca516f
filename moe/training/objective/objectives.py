"""What a step minimizes: the loss of tokens, or which of two answers is preferred.

Shapes: B sequences, S tokens of each on this rank (a shard of them under context parallelism),
P pairs of sequences.
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
class MicroBatchLoss:
    """The loss of one micro-batch, not yet divided."""

    loss: Tensor
    """Sum over tokens or pairs; its gradient is used."""
    count: Tensor
    """Summed over the step, what the loss is divided by: tokens, or pairs."""
    sums: Tensor
    """For the record, FP32: loss, count, then one for each of the objective's `extras`."""


class Objective(Protocol):
    """The objective of one of the training modes."""

    extras: tuple[str, ...]
    """Further means that go on record, by name."""

    def count(self, batch: Batch) -> float:
        """Return what a batch's loss will be divided by."""

    def reference_log_probs(self, batches: Sequence[Batch]) -> Sequence[Tensor | None]:
        """Return what a frozen reference model gives each batch, if one is used; collective."""

    def loss(
        self, losses_bs: Tensor, mask_bs: Tensor, reference_b: Tensor | None
    ) -> MicroBatchLoss:
        """Return a micro-batch's loss.

        Args:
            losses_bs: Losses of its tokens, nats.
            mask_bs: 1 for tokens that count, else 0.
            reference_b: Its entry of `reference_log_probs`.
        """


class TokenObjective:
    """The mean loss of the tokens that count: of text, or of answers only."""

    extras: tuple[str, ...] = ()

    def count(self, batch: Batch) -> float:
        """Return the tokens that count."""
        return float(batch.loss_mask.sum())

    def reference_log_probs(self, batches: Sequence[Batch]) -> Sequence[Tensor | None]:
        """Return None for each batch: there is no reference model."""
        return [None] * len(batches)

    def loss(
        self, losses_bs: Tensor, mask_bs: Tensor, reference_b: Tensor | None
    ) -> MicroBatchLoss:
        """Sum the losses of the tokens that count."""
        assert reference_b is None
        loss, count = (losses_bs.float() * mask_bs).sum(), mask_bs.sum()
        return MicroBatchLoss(loss=loss, count=count, sums=torch.stack([loss.detach(), count]))


def answer_log_probs(losses_bs: Tensor, mask_bs: Tensor) -> Tensor:
    """Return the log-probability of each sequence's answer, nats, [B]; no gradient."""
    log_probs_b = -(losses_bs.detach().float() * mask_bs).sum(dim=1)
    if parallel_state.get_context_parallel_world_size() > 1:
        torch.distributed.all_reduce(log_probs_b, group=parallel_state.get_context_parallel_group())
    return log_probs_b


def dpo_loss(
    losses_bs: Tensor, mask_bs: Tensor, reference_b: Tensor, beta: float
) -> MicroBatchLoss:
    """Return the DPO loss of pairs (arXiv:2305.18290, eq. 7): even rows chosen, odd ones rejected.

    `beta` times a log-ratio is the reward of eq. 5. The loss returned has the gradient of the
    stated one, but is linear in this rank's tokens: ranks that share a sequence add up.
    """
    rewards_p2 = beta * (answer_log_probs(losses_bs, mask_bs) - reference_b).view(-1, 2)
    margin_p = rewards_p2[:, 0] - rewards_p2[:, 1]
    weight_p = beta * torch.sigmoid(-margin_p)
    own_p2 = -(losses_bs.float() * mask_bs).sum(dim=1).view(-1, 2)
    loss = -(weight_p * (own_p2[:, 0] - own_p2[:, 1])).sum()
    sums = torch.stack(
        [
            -F.logsigmoid(margin_p).sum(),
            torch.full_like(margin_p[0], margin_p.numel()),
            (margin_p > 0).float().sum(),
            margin_p.sum(),
            rewards_p2[:, 0].sum(),
        ]
    )
    if parallel_state.get_context_parallel_rank() > 0:
        sums = torch.zeros_like(sums)  # counted once, by the first rank of those that share it
    return MicroBatchLoss(loss=loss, count=sums[1], sums=sums)


DPO_EXTRAS = ("reward_accuracy", "reward_margin", "chosen_reward")
"""Fraction of pairs whose chosen answer has the higher reward; its margin; its reward (nats)."""
