"""The whole model written out slowly in plain torch, from its papers, for any option of `[model]`.

It takes the whole tensors of a checkpoint and computes logits and the training loss, token by
token and expert by expert where that is clearest. Autograd gives the gradients.

Shapes: B sequences, S tokens each, H hidden, D head dimension, E experts, K of them a token.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moe.config.model import ModelConfig, MoeConfig
from tests.support.reference_attention import (
    attend,
    halves,
    turn,
    visible_keys,
    window_keys,
    yarn_mscale,
)


@dataclass
class Step:
    """What a training step over some micro-batches adds up to."""

    losses: Tensor
    """Sum over tokens that count, in nats."""
    objective: Tensor
    """What gradients are of, times the tokens that count."""
    loads: dict[str, Tensor]
    """Tokens that each layer sent to each expert, by the layer's place."""


class SlowModel:
    """One model; `weights` are whole tensors by their checkpoint keys."""

    def __init__(self, model: ModelConfig, weights: dict[str, Tensor]) -> None:
        self.model, self.weights = model, weights
        self.router_loss = torch.zeros(())
        self.loads: dict[str, Tensor] = {}
        self.load_history: dict[str, list[Tensor]] = {}
        self.training = False
        self.is_token = torch.ones(())

    def logits(self, tokens: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        """Return [B, S, V] of tokens [B, S], none of them padding; `cu_seqlens` as in `Batch`."""
        self.is_token = torch.ones_like(tokens)
        hidden = self._hidden(tokens, visible_keys(tokens, cu_seqlens))
        return hidden @ self._head().T

    def step(self, batches: list[dict[str, Tensor]]) -> Step:
        """Run micro-batches as training does."""
        self.training, self.load_history = True, {}
        self.loads = {}
        losses, objective = torch.zeros(()), torch.zeros(())
        learned = sum(float(b["loss_mask"].sum()) for b in batches)
        share = learned / sum(int(b["lengths"].sum()) for b in batches)
        for batch in batches:
            self.router_loss = torch.zeros(())
            main, later = self._losses(batch)
            losses = losses + main
            # Router losses are of all tokens, and weigh as the mean of those that are learned.
            objective = objective + main + later + self.router_loss * share
        self.training = False
        return Step(losses, objective, self.loads)

    def _losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        tokens, labels, mask = batch["tokens"], batch["labels"], batch["loss_mask"]
        visible = visible_keys(tokens, batch.get("cu_seqlens"))
        self.is_token = (torch.arange(tokens.shape[1]) < batch["lengths"][:, None]).long()
        hidden = self._hidden(tokens, visible)
        main = (_cross_entropy(hidden @ self._head().T, labels) * mask).sum()
        later = torch.zeros(())
        counted = mask
        real = self.is_token
        for depth in range(self.model.mtp_layers):
            tokens, labels, mask, real = (_shifted(x) for x in (tokens, labels, mask, real))
            self.is_token = real * _sees_itself(visible, ahead=depth + 1)
            counted = counted * mask * self.is_token
            hidden = self._predict(depth, tokens, hidden, visible)
            losses = _cross_entropy(hidden @ self._head().T, labels) * counted
            later = later + losses.sum() * self.model.mtp_loss_coefficient / self.model.mtp_layers
        return main, later

    def _head(self) -> Tensor:
        tied = self.model.tie_embeddings
        return self.weights["embedding.word_embeddings.weight" if tied else "output_layer.weight"]

    def _hidden(self, tokens: Tensor, visible: Tensor) -> Tensor:
        hidden = self.weights["embedding.word_embeddings.weight"][tokens]
        layers = zip(self.model.sparse_layers, self.model.layer_windows, strict=True)
        for i, (sparse, window) in enumerate(layers):
            hidden = self._layer(f"decoder.layers.{i}", hidden, visible, sparse, window)
        return self._norm("decoder.final_layernorm", hidden)

    def _predict(self, depth: int, tokens: Tensor, hidden: Tensor, visible: Tensor) -> Tensor:
        """One prediction layer (DeepSeek-V3, arXiv:2412.19437, equations 21 to 23)."""
        at = f"mtp.layers.{depth}"
        embedded = self._norm(
            f"{at}.enorm", self.weights["embedding.word_embeddings.weight"][tokens]
        )
        both = torch.cat([embedded, self._norm(f"{at}.hnorm", hidden)], dim=-1)
        hidden = both @ self.weights[f"{at}.eh_proj.weight"].T
        sparse, window = self.model.sparse_layers[-1], self.model.layer_windows[-1]
        hidden = self._layer(f"{at}.transformer_layer", hidden, visible, sparse, window)
        return self._norm(f"{at}.final_layernorm", hidden)

    def _layer(
        self, at: str, hidden: Tensor, visible: Tensor, sparse: bool, window: int | None
    ) -> Tensor:
        visible = visible & window_keys(hidden.shape[1], window)
        attention = self._latent_attention if self.model.mla else self._attention
        norm = "input_layernorm" if self.model.mla else "self_attention.linear_qkv.layer_norm"
        normed = self._norm(f"{at}.{norm}", hidden)
        hidden = hidden + attention(f"{at}.self_attention", normed, visible)
        norm = "pre_mlp_layernorm" if sparse else "mlp.linear_fc1.layer_norm"
        normed = self._norm(f"{at}.{norm}", hidden)
        ffn = self._experts if sparse else self._dense
        return hidden + ffn(f"{at}.mlp", normed)

    def _norm(self, at: str, x: Tensor) -> Tensor:
        latent = self.model.mla is not None and ".self_attention." in at
        epsilon = self.model.latent_norm_epsilon if latent else self.model.norm_epsilon
        scale = 1 / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon)
        ending = "_weight" if at.endswith(".layer_norm") else ".weight"
        return x * scale * self.weights[f"{at}{ending}"]

    def _linear(self, at: str, x: Tensor) -> Tensor:
        bias = self.weights.get(f"{at}.bias")
        product = x @ self.weights[f"{at}.weight"].T
        return product if bias is None else product + bias

    def _attention(self, at: str, x: Tensor, visible: Tensor) -> Tensor:
        model, dim = self.model, self.model.query_head_dim
        rows, length = x.shape[:2]
        groups = model.kv_heads
        each = model.num_heads // groups
        qkv = self._linear(f"{at}.linear_qkv", x).view(rows, length, groups, each + 2, dim)
        query = qkv[:, :, :, :each].reshape(rows, length, model.num_heads, dim)
        key, value = qkv[:, :, :, each], qkv[:, :, :, each + 1]
        if model.qk_norm == "head":
            query, key = (
                self._norm(f"{at}.q_layernorm", query),
                self._norm(f"{at}.k_layernorm", key),
            )
        elif model.qk_norm == "full":
            query = self._norm(f"{at}.q_layernorm", query.flatten(2)).view_as(query)
            key = self._norm(f"{at}.k_layernorm", key.flatten(2)).view_as(key)
        turned = int(dim * model.rope.fraction)
        query, key = (
            torch.cat([turn(t[..., :turned], model.rope), t[..., turned:]], dim=-1)
            for t in (query, key)
        )
        key, value = (t.repeat_interleave(each, dim=2) for t in (key, value))
        sinks = self.weights.get(f"{at}.core_attention.softmax_offset")
        seen = attend(query, key, value, visible, dim**-0.5, sinks)
        return self._linear(f"{at}.linear_proj", seen)

    def _latent_attention(self, at: str, x: Tensor, visible: Tensor) -> Tensor:
        """DeepSeek-V2, arXiv:2405.04434, section 2.1; rotated dimensions are pairs (2i, 2i+1)."""
        model, mla, rope = self.model, self.model.mla, self.model.rope
        assert mla is not None
        heads, plain = model.num_heads, mla.qk_nope_head_dim
        if mla.q_lora_rank is None:
            query = self._linear(f"{at}.linear_q_proj", x)
        else:
            latent = self._linear(f"{at}.linear_q_down_proj", x)
            name = f"{at}.linear_q_up_proj"
            query = self._linear(name, self._norm(f"{name}.layer_norm", latent))
        query = query.unflatten(-1, (heads, -1))
        down = self._linear(f"{at}.linear_kv_down_proj", x)
        latent, shared_key = down.split([mla.kv_lora_rank, mla.qk_rope_head_dim], dim=-1)
        name = f"{at}.linear_kv_up_proj"
        up = self._linear(name, self._norm(f"{name}.layer_norm", latent))
        key, value = up.unflatten(-1, (heads, -1)).split([plain, mla.v_head_dim], dim=-1)
        shared_key = turn(halves(shared_key[:, :, None]), rope).expand(-1, -1, heads, -1)
        turned = turn(halves(query[..., plain:]), rope)
        query = torch.cat([query[..., :plain], turned], dim=-1)
        key = torch.cat([key, shared_key], dim=-1)
        scale = model.query_head_dim**-0.5
        if rope.scaling == "yarn":
            scale *= yarn_mscale(rope.factor, rope.mscale_all_dim) ** 2
        return self._linear(f"{at}.linear_proj", attend(query, key, value, visible, scale, None))

    def _dense(self, at: str, x: Tensor) -> Tensor:
        gate, up = self._linear(f"{at}.linear_fc1", x).chunk(2, dim=-1)
        return self._linear(f"{at}.linear_fc2", self._activated(gate, up))

    def _activated(self, gate: Tensor, up: Tensor) -> Tensor:
        if self.model.activation == "swiglu":
            return gate * torch.sigmoid(gate) * up
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return gate * torch.sigmoid(1.702 * gate) * (up + 1)

    def _experts(self, at: str, x: Tensor) -> Tensor:
        moe = self.model.moe
        assert moe is not None
        rows, length, _ = x.shape
        # The engine lays tokens sequence position first; padding reaches no router.
        everywhere = x.transpose(0, 1).flatten(0, 1)
        real = self.is_token.T.flatten().nonzero()[:, 0]
        flat = everywhere[real]
        logits = self._linear(f"{at}.router", flat)
        chosen, weights, kept = self._route(at, logits, moe)
        outputs = []
        for token in range(flat.shape[0]):
            terms = [
                weights[token, k] * self._expert(at, int(chosen[token, k]), flat[token])
                for k in range(moe.top_k)
                if kept[token, k]
            ]
            outputs.append(sum(terms, torch.zeros_like(flat[token])))
        routed = torch.zeros_like(everywhere).index_copy(0, real, torch.stack(outputs))
        routed = routed.view(length, rows, -1).transpose(0, 1)
        if moe.shared_expert_ffn_hidden_size:
            shared = self._dense(f"{at}.shared_experts", x)
            if moe.shared_expert_gate:
                gate = x @ self.weights[f"{at}.shared_experts.gate_weight"].T
                shared = torch.sigmoid(gate) * shared
            routed = routed + shared
        if self.training:
            self._add_router_losses(at, logits, moe, real % rows)
            load = torch.zeros(moe.num_experts)
            for token, k in kept.nonzero().tolist():
                load[chosen[token, k]] += 1
            self.loads[at] = self.loads.get(at, 0) + load
        return routed

    def _expert(self, at: str, expert: int, token: Tensor) -> Tensor:
        x = token
        for projection in ("linear_fc1", "linear_fc2"):
            name = f"{at}.experts.experts.{projection}"
            x = self.weights[f"{name}.weight"][expert] @ x
            if self.model.linear_bias:
                x = x + self.weights[f"{name}.bias"][expert]
            if projection == "linear_fc1":
                x = self._activated(*x.chunk(2))
        return x

    def _route(self, at: str, logits: Tensor, moe: MoeConfig) -> tuple[Tensor, Tensor, Tensor]:
        """Return experts [T, K], their weights [T, K], and which found room [T, K]."""
        scores = logits.sigmoid() if moe.score_function == "sigmoid" else logits.softmax(-1)
        ranking = scores.detach().clone()
        if moe.expert_bias:
            ranking += self.weights[f"{at}.router.expert_bias"]
        if moe.load_balancing == "sinkhorn" and self.training:
            ranking = _sinkhorn(logits.detach())
        chosen = torch.tensor([_best(row, moe) for row in ranking.tolist()])
        if moe.forced_balance is True:
            turns = range(len(logits) * moe.top_k)
            chosen = torch.tensor([t % moe.num_experts for t in turns]).view(-1, moe.top_k)
        weights = scores.gather(1, chosen)
        if moe.normalize_top_k:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = weights * moe.scaling_factor
        return chosen, weights, _kept(chosen, weights, moe)

    def _add_router_losses(self, at: str, logits: Tensor, moe: MoeConfig, row: Tensor) -> None:
        """Switch's loss (arXiv:2101.03961, eq. 4 to 6), chosen by score alone; ST-MoE's z-loss.

        Each is a mean, times the tokens it is a mean of; `row` is the sequence of each token.
        """
        if moe.z_loss_coefficient:
            square = torch.logsumexp(logits, dim=-1) ** 2
            self.router_loss = self.router_loss + moe.z_loss_coefficient * square.sum()
        scores = logits.softmax(-1)
        if moe.score_function == "sigmoid":
            scores = logits.sigmoid()
            scores = scores / scores.sum(-1, keepdim=True)
        places = scores.topk(moe.top_k, dim=-1).indices
        chosen = torch.zeros_like(scores).scatter(1, places, 1.0)

        def balance(share: Tensor, mean_score: Tensor) -> Tensor:
            return moe.num_experts * (share / moe.top_k * mean_score).sum()

        loss = torch.zeros(())
        if moe.load_balancing == "aux_loss":
            loss = balance(chosen.mean(0), scores.mean(0)) * len(row)
        elif moe.load_balancing == "seq_aux_loss":
            for own in (row == r for r in row.unique()):
                loss = loss + balance(chosen[own].mean(0), scores[own].mean(0)) * own.sum()
        elif moe.load_balancing == "global_aux_loss":
            history = self.load_history.setdefault(at, [])
            history.append(chosen)
            loss = balance(torch.cat(history).mean(0), scores.mean(0)) * len(row)
        self.router_loss = self.router_loss + moe.aux_loss_coefficient * loss


def _best(scores: list[float], moe: MoeConfig) -> list[int]:
    """Return the K best experts, of the best groups where groups limit the choice."""
    allowed = list(range(moe.num_experts))
    if moe.num_groups is not None and moe.group_top_k is not None:
        size = moe.num_experts // moe.num_groups
        groups = [allowed[g * size : (g + 1) * size] for g in range(moe.num_groups)]
        count = moe.group_score_experts or max(1, moe.top_k // moe.group_top_k)
        groups.sort(key=lambda g: -sum(sorted((scores[e] for e in g), reverse=True)[:count]))
        allowed = [e for g in groups[: moe.group_top_k] for e in g]
    return sorted(allowed, key=lambda e: -scores[e])[: moe.top_k]


def _kept(chosen: Tensor, weights: Tensor, moe: MoeConfig) -> Tensor:
    """Give each expert its capacity: largest weights first, or first tokens first."""
    kept = torch.ones_like(chosen, dtype=torch.bool)
    if moe.capacity_factor is None:
        return kept
    capacity = math.ceil(moe.capacity_factor * chosen.numel() / moe.num_experts)
    for expert in range(moe.num_experts):
        places = (chosen == expert).nonzero().tolist()
        if moe.token_drop_policy == "probs":
            places.sort(key=lambda place: -weights[place[0], place[1]].item())
        for token, k in places[capacity:]:
            kept[token, k] = False
    return kept


def _sinkhorn(logits: Tensor) -> Tensor:
    """Scale rows and columns of exp(logits) until all rows, and all columns, sum alike."""
    plan = logits.double().exp()
    for _ in range(2000):
        plan = plan / plan.sum(1, keepdim=True) / plan.shape[0]
        plan = plan / plan.sum(0, keepdim=True) / plan.shape[1]
    return plan


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def _sees_itself(visible: Tensor, ahead: int) -> Tensor:
    """Return 1 where the token `ahead` further on sees this one, so is of its document."""
    return F.pad(visible.diagonal(-ahead, 1, 2).long(), (0, ahead))


def _shifted(x: Tensor) -> Tensor:
    """Move tokens one place to the front; what comes after the last is 0."""
    moved: Any = torch.zeros_like(x)
    moved[:, :-1] = x[:, 1:]
    return moved
