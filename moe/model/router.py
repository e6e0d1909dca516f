"""The router of both kernel sets: megatron-core's gate and losses, our routing decision.

megatron-core's own top-k differs from the published models' where experts are grouped, always
normalizes sigmoid scores, drops tokens "by position" in no order of positions, and ignores the
model's weights with Sinkhorn.

Shapes: S sequence on this rank, B batch, T = S * B tokens, E experts, K experts per token.
"""

from typing import Any

import torch
from megatron.core.transformer.moe.moe_utils import (
    apply_random_logits,
    compute_routing_scores_for_aux_loss,
    sinkhorn,
)
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from moe.config.model import MoeConfig
from moe.model.routing_rule import DecisionHook, route_tokens
from parallel.engine.megatron_version import SEQ_AUX_LOSS_IGNORES_BATCH


class Router(TopKRouter):  # type: ignore[misc]
    """Routes tokens as `rule` says.

    Capacity and Sinkhorn consider the tokens of this rank's micro-batch, as in megatron-core:
    their results depend on how the batch is divided over ranks.
    """

    _num_sequences = 1

    def __init__(self, rule: MoeConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rule = rule
        self.decision_hooks: list[DecisionHook] = []
        self.forced_experts: Tensor | None = None
        """Experts to use instead of choosing, [T, K]: a replay, or a benchmark's routing."""

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return weights (zero where not routed) and the routing map (bool), both [T, E]."""
        assert padding_mask is None
        length, self._num_sequences = logits.shape[:2]
        logits = self.apply_z_loss(logits.flatten(0, 1))
        decision = route_tokens(
            logits,
            self.rule,
            bias=self.expert_bias,
            experts=self.forced_experts,
            ranking=self._ranking(logits.detach()),
        )
        for hook in self.decision_hooks:
            hook(self.layer_number, decision)
        kept_weights = decision.weights * decision.kept
        probs = torch.zeros_like(logits).scatter(1, decision.experts, kept_weights)
        routing_map = torch.zeros_like(logits, dtype=torch.bool)
        routing_map = routing_map.scatter(1, decision.experts, decision.kept)
        if self.training and torch.is_grad_enabled() and self.is_aux_loss_enabled():
            probs = self._with_balancing_losses(logits, probs, length)
        self._count_for_expert_bias(routing_map)
        return probs, routing_map

    def _count_for_expert_bias(self, routing_map: Tensor) -> None:
        """Add up each expert's tokens, by which the optimizer step moves the balancing bias.

        Evaluation and recomputation do not count. megatron-core's own method is compiled: that
        takes a C++ compiler, and seconds at the first step, for one sum.
        """
        if self.enable_expert_bias and torch.is_grad_enabled():
            with torch.no_grad():
                self.local_tokens_per_expert += routing_map.sum(dim=0)

    def _ranking(self, logits: Tensor) -> Tensor | None:
        """Return the values that experts are chosen by, [T, E]; None: their scores."""
        if self.rule.forced_balance == "random":
            ranking: Tensor = apply_random_logits(logits)
            return ranking
        if self.rule.load_balancing == "sinkhorn" and self.training:
            ranking = sinkhorn(logits.float())
            return ranking
        return None

    def _with_balancing_losses(self, logits: Tensor, probs: Tensor, length: int) -> Tensor:
        """Attach the load-balancing losses; they count the top-k by score, without bias."""
        chosen, scores = compute_routing_scores_for_aux_loss(logits, self.topk, self.score_function)
        probs = self._apply_aux_loss(probs, scores, chosen)
        probs = self._apply_seq_aux_loss(probs, scores, chosen, length, self._num_sequences)
        with_loss: Tensor = self._apply_global_aux_loss(probs, scores, chosen)
        return with_loss

    def get_aux_loss_coeff(self, aux_loss_type: str) -> float:
        """Return the loss's coefficient, so that its gradient is that of the stated loss.

        Corrects `SEQ_AUX_LOSS_IGNORES_BATCH`; and every version sums the global batch's loss over
        data-parallel ranks but divides it by their number once too often.
        """
        coefficient: float = super().get_aux_loss_coeff(aux_loss_type)
        if aux_loss_type == "seq_aux_loss" and SEQ_AUX_LOSS_IGNORES_BATCH:
            return coefficient * self._num_sequences
        if aux_loss_type == "global_aux_loss":
            shared: float = coefficient * self.tp_dp_cp_group.size() / self.tp_cp_group.size()
            return shared
        return coefficient
