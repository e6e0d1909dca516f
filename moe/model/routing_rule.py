"""What a router decides from its logits: which experts a token goes to, with which weights.

Shapes: T tokens, E experts, K experts a token, M groups of experts.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from moe.config.model import MoeConfig


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The routing of T tokens in one layer."""

    logits: Tensor
    """What the router computed, [T, E]."""
    experts: Tensor
    """The chosen experts, [T, K], in no order."""
    weights: Tensor
    """Their weights, [T, K], normalised and scaled as the model says."""
    kept: Tensor
    """Whether each token found room, bool [T, K]; all true without a capacity."""


def decide(
    logits: Tensor,
    rule: MoeConfig,
    *,
    bias: Tensor | None = None,
    experts: Tensor | None = None,
    ranking: Tensor | None = None,
) -> Decision:
    """Route tokens by their logits [T, E].

    Args:
        logits: Of the router, in its number format (`router_dtype`).
        rule: The model's routed experts.
        bias: Auxiliary-loss-free balancing's bias [E]; it chooses experts and does not weigh them.
        experts: Experts to take instead of choosing, [T, K] (a replay).
        ranking: What to choose by instead of the scores, [T, E] (Sinkhorn, a random choice).
    """
    scores = _scores(logits, rule)
    if experts is None and rule.forced_balance is True:
        experts = _even_choice(len(logits), rule, logits.device)
    if experts is None:
        by = scores.detach() if ranking is None else ranking
        experts = _chosen(by + bias if bias is not None and ranking is None else by, rule)
    weights = scores.gather(1, experts)
    if rule.normalize_top_k:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    weights = (weights * rule.scaling_factor).type_as(logits)
    kept = torch.ones_like(experts, dtype=torch.bool)
    if rule.capacity_factor is not None:
        kept = _with_room(experts, weights.detach(), rule)
    return Decision(logits=logits, experts=experts, weights=weights, kept=kept)


def _scores(logits: Tensor, rule: MoeConfig) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.sigmoid() if rule.score_function == "sigmoid" else logits.softmax(dim=-1)


def _even_choice(tokens: int, rule: MoeConfig, device: torch.device) -> Tensor:
    """Deal experts to tokens in turn, [T, K]."""
    turns = torch.arange(tokens * rule.top_k, device=device)
    return (turns % rule.num_experts).view(tokens, rule.top_k)


def router_probabilities(logits: Tensor, rule: MoeConfig) -> Tensor:
    """Return what a token's routing may be read as, a distribution over experts, [T, E]."""
    scores = _scores(logits, rule)
    return scores / scores.sum(dim=-1, keepdim=True)


def _chosen(scores: Tensor, rule: MoeConfig) -> Tensor:
    """Return the K best experts, [T, K], of the best groups where groups limit the choice.

    A group's score is the sum of its best experts': one in DeepSeek-V2 (arXiv:2405.04434,
    section 2.1.4), K / `group_top_k` in DeepSeek-V3 (arXiv:2412.19437, section 2.1.2).
    """
    if rule.num_groups is not None and rule.group_top_k is not None:
        grouped_tme = scores.view(scores.shape[0], rule.num_groups, -1)
        best = grouped_tme.topk(rule.group_score_size, dim=-1).values.sum(dim=-1)
        groups = best.topk(rule.group_top_k, dim=-1).indices
        allowed = torch.zeros_like(best, dtype=torch.bool).scatter(1, groups, True)
        scores = grouped_tme.masked_fill(~allowed[..., None], float("-inf")).flatten(1)
    return scores.topk(rule.top_k, dim=-1).indices


def _with_room(experts: Tensor, weights: Tensor, rule: MoeConfig) -> Tensor:
    """Return which choices fit in their experts.

    An expert takes `capacity_factor` times the even share of choices, rounded up: those of the
    largest weights, or the first in the batch.
    """
    tokens, top_k = experts.shape
    share = tokens * top_k / rule.num_experts
    capacity = math.ceil(share * (rule.capacity_factor or 0.0))
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
