"""Routing of tokens from router logits: scores, top-k choice, weights and capacity.

Shapes: T tokens, E experts, K experts per token, M groups of experts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moe.config.model import MoeConfig


@dataclass(frozen=True, kw_only=True)
class RoutingDecision:
    """The routing of T tokens in one layer; padding is not among them."""

    logits: Tensor
    """Router logits, [T, E]."""
    experts: Tensor
    """The experts of each token, [T, K], in no particular order."""
    weights: Tensor
    """Their weights, [T, K], normalized and scaled as the model says."""
    kept: Tensor
    """Whether each assignment is within its expert's capacity, bool [T, K]; all true without a
    capacity."""
    positions: Tensor | None = None
    """Which of the batch's positions each token has, int64 [T], counted with all sequences at each
    place of the sequence; None: all of them, in order."""


DecisionHook = Callable[[int, RoutingDecision], None]
"""Called with the number of a layer (from 1) and each of its router's decisions."""


def route_tokens(
    logits: Tensor,
    rule: MoeConfig,
    *,
    positions: Tensor | None = None,
    bias: Tensor | None = None,
    experts: Tensor | None = None,
    ranking: Tensor | None = None,
) -> RoutingDecision:
    """Route tokens by their logits [T, E].

    Args:
        logits: Of the router, in its number format (`router_dtype`).
        rule: The model's routed experts.
        positions: As in `RoutingDecision`.
        bias: Bias of auxiliary-loss-free balancing, [E]; it affects the choice of experts and not
            their weights.
        experts: Experts to use instead of choosing, [T, K] (a replay).
        ranking: Values to choose by instead of the scores, [T, E] (Sinkhorn, a random choice).
    """
    scores = _scores(logits, rule)
    if experts is None and rule.forced_balance is True:
        experts = _round_robin(len(logits), rule, logits.device)
    if experts is None:
        by = scores.detach() if ranking is None else ranking
        experts = _top_k(by + bias if bias is not None and ranking is None else by, rule)
    weights = scores.gather(1, experts)
    if rule.normalize_top_k:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    weights = (weights * rule.scaling_factor).type_as(logits)
    kept = torch.ones_like(experts, dtype=torch.bool)
    if rule.capacity_factor is not None:
        kept = _apply_capacity(experts, weights.detach(), rule, rule.capacity_factor)
    return RoutingDecision(
        logits=logits, experts=experts, weights=weights, kept=kept, positions=positions
    )


def router_probabilities(logits: Tensor, rule: MoeConfig) -> Tensor:
    """Return scores normalized to a distribution over experts for each token, [T, E]."""
    scores = _scores(logits, rule)
    return scores / (scores.sum(dim=-1, keepdim=True) + 1e-20)


def _scores(logits: Tensor, rule: MoeConfig) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.sigmoid() if rule.score_function == "sigmoid" else logits.softmax(dim=-1)


def _round_robin(tokens: int, rule: MoeConfig, device: torch.device) -> Tensor:
    """Assign experts to tokens in turn, [T, K]."""
    turns = torch.arange(tokens * rule.top_k, device=device)
    return (turns % rule.num_experts).view(tokens, rule.top_k)


def _top_k(scores: Tensor, rule: MoeConfig) -> Tensor:
    """Return the K best experts, [T, K], of the best groups where groups limit the choice.

    A group's score is the sum of its best experts' scores: one expert in DeepSeek-V2
    (arXiv:2405.04434, section 2.1.4), K / `group_top_k` in DeepSeek-V3 (arXiv:2412.19437,
    section 2.1.2).
    """
    if rule.num_groups is not None and rule.group_top_k is not None:
        grouped_tme = scores.view(scores.shape[0], rule.num_groups, -1)
        group_scores = grouped_tme.topk(rule.group_score_size, dim=-1).values.sum(dim=-1)
        groups = group_scores.topk(rule.group_top_k, dim=-1).indices
        allowed = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, groups, True)
        scores = grouped_tme.masked_fill(~allowed[..., None], float("-inf")).flatten(1)
    return scores.topk(rule.top_k, dim=-1).indices


def _apply_capacity(
    experts: Tensor, weights: Tensor, rule: MoeConfig, capacity_factor: float
) -> Tensor:
    """Return which assignments are within their expert's capacity, bool [T, K].

    An expert takes `capacity_factor` times the even share of assignments, rounded up: those of the
    largest weights, or the first in the batch.
    """
    tokens, top_k = experts.shape
    capacity = math.ceil(tokens * top_k / rule.num_experts * capacity_factor)
    flat = experts.flatten()
    if rule.token_drop_policy == "probs":
        order = weights.flatten().argsort(descending=True, stable=True)
    else:
        order = torch.arange(flat.numel(), device=flat.device)
    by_expert = order[flat[order].argsort(stable=True)]
    counts = flat.bincount(minlength=rule.num_experts)
    before = counts.cumsum(0) - counts
    rank = torch.arange(flat.numel(), device=flat.device) - before[flat[by_expert]]
    kept = torch.empty_like(flat, dtype=torch.bool)
    kept[by_expert] = rank < capacity
    return kept.view_as(experts)
