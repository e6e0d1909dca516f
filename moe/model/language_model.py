"""megatron-core's language model with our output stage, and padding that no router sees.

Shapes: S sequence on this rank, B batch, H hidden, V vocabulary.
"""

from collections.abc import Collection
from typing import Any

import torch
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from megatron.core.transformer.multi_token_prediction import MTPLossAutoScaler, roll_tensor
from torch import Tensor

from moe.model.cross_entropy import chunked_cross_entropy
from moe.model.document_masks import cu_seqlens_of
from moe.model.fp8.delayed_scaling import (
    pickle_nothing,
    sharded_fp8_state,
    start_fp8_state,
    without_extra_state,
)
from moe.model.padding import (
    TOKENS_AHEAD,
    hide_padding_of_prediction,
    shard_like_hidden,
    tokens_ahead,
)
from moe.model.prediction_recompute import correct_recomputation
from moe.model.schedule_plan import correct_plan
from parallel.engine.megatron_version import MTP_LAYER

MTP_INPUTS = (
    "input_ids", "position_ids", "attention_mask", "rotary_pos_emb", "packed_seq_params"
)  # fmt: skip


PADDING_INPUT = 5
"""The place of the padding mask among what `GPTModel._preprocess` returns."""


class LanguageModel(GPTModel):  # type: ignore[misc]
    """Maps tokens [B, S] to losses [B, S] where labels are given, else to logits [B, S, V / tp].

    Multi-token-prediction layers (DeepSeek-V3, arXiv:2412.19437, section 2.2) run in training
    only; their gradients are added through megatron-core's `MTPLossAutoScaler`, divided like the
    main loss by the step's tokens.

    `padding_mask` [B, S] is true at padding, None where there is none.
    """

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self._padding_mask: Tensor | None = None
        for depth, layer in enumerate(self._depths, start=1):
            correct_recomputation(layer, self.pg_collection.tp)
            hide_padding_of_prediction(getattr(layer, MTP_LAYER), depth)
        pickle_nothing(self)

    @property
    def prediction_layers(self) -> list[Any]:
        """The Transformer layers of this chunk's multi-token prediction, by depth."""
        return [getattr(depth, MTP_LAYER) for depth in self._depths]

    @property
    def _depths(self) -> list[Any]:
        return list(self.mtp.layers) if self.mtp_process else []

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple[tuple[int, int, int], ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> ShardedStateDict:
        """Describe all weights as shards of the full tensors, for checkpoints of any layout.

        Keys contain each layer's own number, since sparse and dense layers may alternate.
        """
        return without_extra_state(self._described(prefix, sharded_offsets, metadata))

    def sharded_fp8_state(self, stored: Collection[str] = ()) -> ShardedStateDict:
        """Describe the scales of Transformer Engine's delayed scaling, as far as there are some.

        Args:
            stored: Names of tensors in a checkpoint: modules begin with those it has.
        """
        described = self._described()
        start_fp8_state(self, described, stored)
        return sharded_fp8_state(self, described)

    def _described(
        self,
        prefix: str = "",
        sharded_offsets: tuple[tuple[int, int, int], ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> ShardedStateDict:
        # A new dictionary, because megatron-core adds this start's process groups to it.
        metadata = {**(metadata or {}), "non_homogeneous_layers": True}
        return super().sharded_state_dict(prefix, sharded_offsets, metadata)

    def build_schedule_plan(self, *args: Any, **values: Any) -> Any:
        """Return the forward pass of a micro-batch in parts (`parallel.overlap_experts`)."""
        plan = super().build_schedule_plan(*args, **values)
        correct_plan(plan, self.decoder.final_layernorm)
        return plan

    def _preprocess(
        self, *args: Any, padding_mask: Tensor | None = None, **values: Any
    ) -> tuple[Any, ...]:
        """Prepare the decoder's inputs, on every pipeline stage with its shard of the padding.

        megatron-core shards the padding along the sequence on the first stage only.
        """
        self._padding_mask = padding_mask
        inputs: tuple[Any, ...] = super()._preprocess(*args, **values)
        before, after = inputs[:PADDING_INPUT], inputs[PADDING_INPUT + 1 :]
        return (
            *before,
            shard_like_hidden(padding_mask, self.config, self.pg_collection.tp),
            *after,
        )

    def _postprocess(
        self, hidden_states: Tensor, *, labels: Tensor | None, **values: Any
    ) -> Tensor:
        """Run what follows this chunk's Transformer layers; `hidden_states` are [S, B, H]."""
        runs_mtp = values["mtp_in_postprocess"] and self.training and labels is not None
        if runs_mtp:
            assert labels is not None
            inputs = {name: values[name] for name in MTP_INPUTS}
            cu_seqlens = cu_seqlens_of(values["attention_mask"], values["packed_seq_params"])
            ahead = tokens_ahead(
                labels, self._padding_mask, cu_seqlens, self.config, self.pg_collection
            )
            shard = shard_like_hidden(ahead, self.config, self.pg_collection.tp)
            hidden_states = self.mtp(
                hidden_states=hidden_states,
                embedding=self.embedding,
                extra_block_kwargs={TOKENS_AHEAD: shard},
                **inputs,
            )
        if not self.post_process:
            return hidden_states
        tied = self.share_embeddings_and_output_weights
        if labels is None:
            weight = self.shared_embedding_or_output_weight() if tied else None
            logits, _bias = self.output_layer(hidden_states, weight=weight)
            logits_bsv: Tensor = logits.transpose(0, 1).contiguous()
            return logits_bsv
        weight = self._output_weight()
        depths = 1 + (self.config.mtp_num_layers if runs_mtp else 0)
        first, *later = hidden_states.chunk(depths, dim=0)
        if later:
            mask = values["loss_mask"]
            first = self._attach_mtp_losses(first, later, weight, labels, mask, ahead)
        return self._losses(first, weight, labels)

    def _output_weight(self) -> Tensor:
        """Return the output layer's weight for use without a call of that layer.

        With `overlap_param_gather`, megatron-core's data parallelism waits for a layer's parameters
        in a hook before its call.
        """
        for before_call in self.output_layer._forward_pre_hooks.values():
            before_call(self.output_layer, ())
        if self.share_embeddings_and_output_weights:
            shared: Tensor = self.shared_embedding_or_output_weight()
            return shared
        own: Tensor = self.output_layer.weight
        return own

    def _losses(self, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        """Return cross-entropies [B, S] of hidden states [S, B, H], in nats."""
        group = self.pg_collection.tp
        if self.config.sequence_parallel:
            hidden = gather_from_sequence_parallel_region(hidden, group=group)
        else:
            hidden = copy_to_tensor_model_parallel_region(hidden, group=group)
        losses = chunked_cross_entropy(
            hidden.flatten(0, 1), weight, labels.transpose(0, 1).flatten(), group
        )
        return losses.view(hidden.shape[:2]).transpose(0, 1).contiguous()

    def _attach_mtp_losses(
        self,
        hidden: Tensor,
        later: list[Tensor],
        weight: Tensor,
        labels: Tensor,
        mask: Tensor | None,
        ahead: Tensor,
    ) -> Tensor:
        """Attach the losses of tokens further ahead to `hidden`.

        A prediction counts where all tokens up to its own count, and lie in one document: a
        conversation's last label may count, and so may the first of the next one.
        """
        mask = torch.ones_like(labels, dtype=torch.float32) if mask is None else mask
        shifted, counted = labels, mask
        scale = self.config.mtp_loss_scaling_factor / self.config.mtp_num_layers
        for depth, states in enumerate(later, start=1):
            shifted, _ = roll_tensor(shifted, cp_group=self.pg_collection.cp)
            mask, _ = roll_tensor(mask, cp_group=self.pg_collection.cp)
            counted = counted * mask * (ahead >= depth)
            losses = self._losses(states, weight, shifted) * counted
            hidden = MTPLossAutoScaler.apply(hidden, scale * losses)
        return hidden
