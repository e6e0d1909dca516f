"""The router of both kernel sets: megatron-core's gate, our routing decision and losses.

megatron-core's own top-k differs from the published models' where experts are grouped, always
normalizes sigmoid scores, drops tokens "by position" in no order of positions, and ignores the
model's weights with Sinkhorn. It also routes padding.

Shapes: S sequence on this rank, B batch, T tokens among the S * B positions (all but padding),
E experts, K experts per token.
"""

from typing import Any

import torch
from megatron.core.transformer.moe.moe_utils import (
    MoEAuxLossAutoScaler,
    apply_random_logits,
    sinkhorn,
)
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor

from moe.config.model import MoeConfig
from moe.model.router_losses import LossTotals, balancing_loss, sum_load, top_k_by_score, z_loss
from moe.model.routing_rule import DecisionHook, RoutingDecision, route_tokens


class Router(TopKRouter):  # type: ignore[misc]
    """Routes tokens as `rule` says; padding goes to no expert and counts nowhere.

    Capacity and Sinkhorn consider the tokens of this rank's micro-batch, as in megatron-core:
    their results depend on how the batch is divided over ranks.
    """

    def __init__(self, rule: MoeConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rule = rule
        self.decision_hooks: list[DecisionHook] = []
        self.forced_experts: Tensor | None = None
        """Experts to use instead of choosing, [T, K]: a replay, or a benchmark's routing."""
        self.planned_padding: Tensor | None = None
        """Padding [S, B] of a forward pass in parts, which give the router none."""
        self.losses = LossTotals()
        """Of training since they were last read."""

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return weights (zero where not routed) and the routing map (bool), both [S * B, E].

        `logits` are [S, B, E]; `padding_mask` [S, B] is true at padding, None where there is none.
        """
        if padding_mask is None:
            padding_mask = self.planned_padding
        num_sequences, flat = logits.shape[1], logits.flatten(0, 1)
        positions_t = None if padding_mask is None else (~padding_mask).flatten().nonzero()[:, 0]
        own_te = flat if positions_t is None else flat[positions_t]
        decision = self._decide(own_te, positions_t, num_sequences)
        kept_weights = decision.weights * decision.kept
        probs = torch.zeros_like(own_te).scatter(1, decision.experts, kept_weights)
        routing_map = torch.zeros_like(own_te, dtype=torch.bool)
        routing_map = routing_map.scatter(1, decision.experts, decision.kept)
        self._count_for_expert_bias(routing_map)
        self._announce_missing(is_padded=positions_t is not None)
        if positions_t is None:
            return probs, routing_map
        everywhere = torch.zeros_like(flat), torch.zeros_like(flat, dtype=torch.bool)
        return (
            everywhere[0].index_copy(0, positions_t, probs),
            everywhere[1].index_copy(0, positions_t, routing_map),
        )

    def _announce_missing(self, *, is_padded: bool) -> None:
        """Tell the dispatcher, which runs next, whether tokens may have fewer than K experts.

        It reads the capacity factor for that, and else takes K of every position.
        """
        if is_padded:
            self.config.moe_expert_capacity_factor = self.rule.capacity_factor or 1.0
        else:
            self.config.moe_expert_capacity_factor = self.rule.capacity_factor

    def _decide(
        self, logits_te: Tensor, positions_t: Tensor | None, num_sequences: int
    ) -> RoutingDecision:
        """Route tokens by their logits, and attach the router's losses to these."""
        if self.training and torch.is_grad_enabled():
            every = torch.arange(len(logits_te), device=logits_te.device)
            sequence_t = (every if positions_t is None else positions_t) % num_sequences
            logits_te = self._with_losses(logits_te, sequence_t, num_sequences)
        decision = route_tokens(
            logits_te,
            self.rule,
            positions=positions_t,
            bias=self.expert_bias,
            experts=self.forced_experts,
            ranking=self._ranking(logits_te.detach()),
        )
        for hook in self.decision_hooks:
            hook(self.layer_number, decision)
        return decision

    def _count_for_expert_bias(self, routing_map: Tensor) -> None:
        """Add up each expert's tokens, by which the optimizer step moves the balancing bias.

        Evaluation and recomputation do not count. megatron-core's own method is compiled: that
        takes a C++ compiler, and seconds at the first step, for one sum.
        """
        if self.enable_expert_bias and torch.is_grad_enabled():
            with torch.no_grad():
                self.local_tokens_per_expert += routing_map.sum(dim=0)

    def _ranking(self, logits_te: Tensor) -> Tensor | None:
        """Return the values that experts are chosen by, [T, E]; None: their scores."""
        if self.rule.forced_balance == "random":
            ranking: Tensor = apply_random_logits(logits_te)
            return ranking
        # Sinkhorn divides by the number of tokens, and a rank may hold padding only.
        if self.rule.load_balancing == "sinkhorn" and self.training and len(logits_te):
            ranking = sinkhorn(logits_te.float())
            return ranking
        return None

    def _with_losses(self, logits_te: Tensor, sequence_t: Tensor, num_sequences: int) -> Tensor:
        """Attach the router's losses, and add them to `losses`.

        The engine divides what is attached on all ranks by what the main loss is divided by, and
        `scale_aux_losses` makes that a mean over tokens.
        """
        if not (self.rule.has_balancing_loss or self.rule.z_loss_coefficient):
            return logits_te
        balancing = self._balancing(logits_te, sequence_t, num_sequences)
        z = z_loss(logits_te).sum()
        self.losses.add(len(logits_te), balancing, z)
        total = self.config.moe_aux_loss_coeff * balancing
        total = total + (self.config.moe_z_loss_coeff or 0.0) * z
        attached: Tensor = MoEAuxLossAutoScaler.apply(logits_te, total)
        return attached

    def _balancing(self, logits_te: Tensor, sequence_t: Tensor, num_sequences: int) -> Tensor:
        """Return the sum over tokens of the load-balancing loss; zero where the rule has none."""
        kind = self.rule.load_balancing
        if not self.rule.has_balancing_loss:
            return logits_te.new_zeros(())
        probabilities_te, chosen_te = top_k_by_score(logits_te, self.rule)
        if kind == "seq_aux_loss":
            load_ge = sum_load(chosen_te, sequence_t, num_sequences, self.tp_cp_group)
            return balancing_loss(probabilities_te, load_ge, sequence_t).sum()
        ranks = self.tp_dp_cp_group if kind == "global_aux_loss" else self.tp_cp_group
        together_t = torch.zeros_like(sequence_t)
        load_ge = sum_load(chosen_te, together_t, 1, ranks)
        if kind == "global_aux_loss":
            # The step's micro-batches so far; megatron-core clears them after the last.
            self.global_tokens_per_expert += load_ge[0]
            load_ge = self.global_tokens_per_expert[None]
        return balancing_loss(probabilities_te, load_ge, together_t).sum()
