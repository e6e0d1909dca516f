"""Losses of a router beside the language model's: load balancing in three kinds, and the z-loss.

Each is a sum over tokens, so that tokens, sequences, micro-batches and ranks add up whatever their
number: padding leaves the ranks of one sequence, and the sequences of one batch, unequally many.
megatron-core (0.16 to 0.19) weighs each rank's part of a loss by that rank's tokens, and a short
sequence like the mean one, which is right for equal numbers only.

Shapes: T tokens on this rank, E experts, G groups of tokens that share a load.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from moe.config.model import MoeConfig
from moe.model.routing_rule import router_probabilities


class LossTotals:
    """What a router's losses add up to until they are read: tokens, balancing loss, z-loss."""

    def __init__(self) -> None:
        self._totals: Tensor | None = None

    def add(self, num_tokens: int, balancing: Tensor, z: Tensor) -> None:
        """Add the sums over some tokens."""
        tokens = torch.tensor(float(num_tokens), device=z.device)
        sums = torch.stack([tokens, balancing.detach(), z.detach()]).double()
        self._totals = sums if self._totals is None else self._totals + sums

    def pop(self) -> Tensor:
        """Return and clear the totals: tokens, balancing loss, z-loss; FP64 [3], on the CPU."""
        totals, self._totals = self._totals, None
        return torch.zeros(3, dtype=torch.float64) if totals is None else totals.cpu()


def z_loss(logits_te: Tensor) -> Tensor:
    """Return each token's z-loss (arXiv:2202.08906, eq. 5), [T]."""
    wide = logits_te.to(torch.promote_types(logits_te.dtype, torch.float32))
    return wide.logsumexp(dim=-1).square()


def top_k_by_score(logits_te: Tensor, rule: MoeConfig) -> tuple[Tensor, Tensor]:
    """Return each token's probabilities and which experts are its best by them, both [T, E].

    Balancing losses count these, not the routing: without balancing bias, groups and capacity.
    """
    probabilities_te = router_probabilities(logits_te, rule)
    best_tk = probabilities_te.detach().topk(rule.top_k, dim=-1).indices
    return probabilities_te, torch.zeros_like(probabilities_te).scatter(1, best_tk, 1.0)


def sum_load(
    chosen_te: Tensor, group_t: Tensor, num_groups: int, ranks: dist.ProcessGroup
) -> Tensor:
    """Return how often each group of tokens chose each expert, over all `ranks`, [G, E]."""
    load_ge = chosen_te.new_zeros(num_groups, chosen_te.shape[1]).index_add(0, group_t, chosen_te)
    if ranks.size() > 1:
        dist.all_reduce(load_ge, group=ranks)
    return load_ge


def balancing_loss(probabilities_te: Tensor, load_ge: Tensor, group_t: Tensor) -> Tensor:
    """Return each token's part of its group's load-balancing loss, [T].

    The mean over a group's tokens is the loss of arXiv:2101.03961, eq. 4 to 6, one for an even
    load: the experts' shares of the load times the tokens' probabilities, times the experts.
    """
    share_ge = load_ge / load_ge.sum(dim=1, keepdim=True).clamp(min=1)
    return load_ge.shape[1] * (share_ge[group_t] * probabilities_te).sum(dim=-1)
