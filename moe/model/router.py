"""The router of both kernel sets: megatron-core's gate and losses, our decision.

megatron-core's own choice differs from the published models' where experts are grouped, always
normalises sigmoid scores, drops tokens "by position" in no order of positions, and has Sinkhorn
ignore the model's weights.

Shapes: S sequence on this rank, B batch, T = S * B tokens, E experts, K experts a token.
"""

from collections.abc import Callable
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
from moe.model.routing_rule import Decision, decide
from parallel.engine.megatron_version import SEQ_AUX_LOSS_IGNORES_BATCH

Watcher = Callable[[int, Decision], None]


class Router(TopKRouter):  # type: ignore[misc]
    """Routes tokens as `rule` says.

    Capacity and Sinkhorn look at the tokens of this rank's micro-batch, as in the engine: their
    results depend on how the batch is cut.
    """

    _sequences = 1

    def __init__(self, rule: MoeConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.rule = rule
        self.watchers: list[Watcher] = []
        """Called with the layer's number (from 1) and each decision."""
        self.replay: Tensor | None = None
        """Experts to take instead of choosing, [T, K]."""

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return weights [T, E] (zero elsewhere) and whether tokens go to experts, bool [T, E]."""
        assert padding_mask is None
        length, self._sequences = logits.shape[:2]
        logits = self.apply_z_loss(logits.flatten(0, 1))
        decision = decide(
            logits,
            self.rule,
            bias=self.expert_bias,
            experts=self.replay,
            ranking=self._ranking(logits.detach()),
        )
        for watch in self.watchers:
            watch(self.layer_number, decision)
        kept_weights = decision.weights * decision.kept
        probs = torch.zeros_like(logits).scatter(1, decision.experts, kept_weights)
        places = torch.zeros_like(logits, dtype=torch.bool)
        routing_map = places.scatter(1, decision.experts, decision.kept)
        if self.training and torch.is_grad_enabled() and self.is_aux_loss_enabled():
            probs = self._with_balancing_losses(logits, probs, length)
        self._apply_expert_bias(routing_map)
        return probs, routing_map

    def _ranking(self, logits: Tensor) -> Tensor | None:
        """Return what experts are chosen by, [T, E]; None: their scores."""
        if self.rule.forced_balance == "random":
            ranking: Tensor = apply_random_logits(logits)
            return ranking
        if self.rule.load_balancing == "sinkhorn" and self.training:
            ranking = sinkhorn(logits.float())
            return ranking
        return None

    def _with_balancing_losses(self, logits: Tensor, probs: Tensor, length: int) -> Tensor:
        """Attach the load-balancing loss; it sees the choice by score alone."""
        chosen, scores = compute_routing_scores_for_aux_loss(logits, self.topk, self.score_function)
        probs = self._apply_aux_loss(probs, scores, chosen)
        probs = self._apply_seq_aux_loss(probs, scores, chosen, length, self._sequences)
        with_loss: Tensor = self._apply_global_aux_loss(probs, scores, chosen)
        return with_loss

    def get_aux_loss_coeff(self, aux_loss_type: str) -> float:
        """Return the loss's coefficient, so that its gradient is that of the stated loss.

        0.16 weighs the loss of B sequences as one sequence's; both versions sum the global
        batch's loss over data-parallel ranks and divide by their number once too often.
        """
        coefficient: float = super().get_aux_loss_coeff(aux_loss_type)
        if aux_loss_type == "seq_aux_loss" and SEQ_AUX_LOSS_IGNORES_BATCH:
            return coefficient * self._sequences
        if aux_loss_type == "global_aux_loss":
            shared: float = coefficient * self.tp_dp_cp_group.size() / self.tp_cp_group.size()
            return shared
        return coefficient
