"""Kernel set `torch`: attention on torch's fused `scaled_dot_product_attention`.

Shapes: S sequence on this rank, B batch, N heads, G key-value heads, D head dimension, L length of
one document, W sliding window.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core.dist_checkpointing.mapping import ShardedStateDict
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint
from torch import Tensor, nn

from moe.model.context_parallel import gather_sequence, sequence_positions
from moe.model.document_masks import document_indices
from moe.model.kv_cache import KeyValueCache


class Attention(nn.Module):
    """Causal attention with optional document masks, sliding window, sinks and KV cache.

    With context parallelism (context_parallel.py) keys and values are gathered, queries stay on
    their rank (Llama 3, arXiv:2407.21783, section 3.3.2).
    """

    softmax_offset: nn.Parameter | None

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        softmax_scale: float | None = None,
        pg_collection: ProcessGroupCollection | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        assert attn_mask_type == AttnMaskType.causal
        self.scale = softmax_scale
        self.window = _layer_window(config, layer_number)
        groups = pg_collection or ProcessGroupCollection.use_mpu_process_groups(["tp", "cp"])
        self.cp_group: dist.ProcessGroup = groups.cp
        self.cache: KeyValueCache | None = None
        sinks = None
        if config.softmax_type == "learnable":
            heads = config.num_attention_heads // groups.tp.size()
            device = torch.cuda.current_device()
            sinks = nn.Parameter(torch.zeros(heads, dtype=config.params_dtype, device=device))
            set_tensor_model_parallel_attributes(sinks, is_parallel=True, dim=0, stride=1)
        self.register_parameter("softmax_offset", sinks)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params: Any = None,
        **_: Any,
    ) -> Tensor:
        """Return attention [S, B, N * D] of query [S, B, N, D], key and value [S, B, G, D].

        `attention_mask` restricts the causal mask further: bool [B, 1, S, keys] is true for the
        keys that a query may see; int [documents + 1] is `cu_seqlens` of documents
        (document_masks.py), which see only themselves; None does not restrict it.
        """
        assert attention_bias is None and packed_seq_params is None
        if self.cache is not None:
            key, value = self.cache.extend(key, value)
        if self.cp_group.size() > 1:
            key = gather_sequence(key, self.cp_group)
            value = gather_sequence(value, self.cp_group)
        q_bnsd, k_bgsd, v_bgsd = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        is_bool = attention_mask is not None and attention_mask.dtype == torch.bool
        if is_bool or query.shape[0] != key.shape[0]:
            mask = self._build_mask(query.shape[0], key.shape[0], attention_mask, query.device)
            out = self._masked(q_bnsd, k_bgsd, v_bgsd, mask)
        elif attention_mask is not None:
            out = self._by_document(q_bnsd, k_bgsd, v_bgsd, attention_mask)
        else:
            out = self._causal(q_bnsd, k_bgsd, v_bgsd)
        return out.permute(2, 0, 1, 3).flatten(2)

    def _build_mask(
        self, queries: int, keys: int, restriction: Tensor | None, device: torch.device
    ) -> Tensor:
        """Return which keys each query of this rank sees, bool [1 or B, 1, queries, keys]."""
        key_positions = torch.arange(keys, device=device)
        positions = key_positions[keys - queries :]
        if self.cp_group.size() > 1:
            all_ranks = sequence_positions(self.cp_group.size(), queries, device)
            positions = all_ranks[self.cp_group.rank()]
        distance = positions[:, None] - key_positions[None, :]
        mask = distance >= 0
        if self.window is not None:
            mask &= distance < self.window
        if restriction is None:
            return mask[None, None]
        if restriction.dtype == torch.bool:
            return mask & restriction
        document = document_indices(restriction).to(device).view(-1, 1, 1, keys)
        return mask & (document[..., positions].transpose(-2, -1) == document)

    def _by_document(self, q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Attend within each document; a document never continues in the next row."""
        length, outputs = q.shape[2], []
        for first, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
            row, start = divmod(first, length)
            document = slice(start, start + end - first)
            outputs.append(self._causal(*(x[row : row + 1, :, document] for x in (q, k, v))))
        joined_nld = torch.cat(outputs, dim=2)[0]
        return joined_nld.reshape(q.shape[1], q.shape[0], length, -1).transpose(0, 1)

    def _causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend in sequences of one length, without another mask, [B, N, L, D]."""
        if self.window is not None and self.window < q.shape[2]:
            return self._windowed(q, k, v, self.window)
        if self.softmax_offset is None:
            return self._attend(q, k, v, None)
        # The sink is a key before the first; a query is padded there to keep the mask square.
        q, k, v = self._with_sink_feature(q, k, v)
        q = F.pad(q, (0, 0, 1, 0))
        return self._attend(q, *_with_sink_key(k, v), None)[:, :, 1:]

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Attend from blocks of W queries to their own block and the one before: cost L * 2W."""
        rows, length = q.shape[0], q.shape[2]
        blocks = -(-length // window)
        q, k, v = (F.pad(x, (0, 0, 0, blocks * window - length)) for x in (q, k, v))
        queries = torch.arange(blocks * window, device=q.device).view(blocks, window, 1)
        keys = torch.arange(-window, window, device=q.device) + queries[:, :1]
        mask = (keys >= 0) & (keys <= queries) & (queries - keys < window)
        q = _block_rows(q, blocks)
        k, v = (_block_rows(_with_block_before(x, blocks), blocks) for x in (k, v))
        out = self._masked(q, k, v, mask[None].expand(rows, -1, -1, -1).flatten(0, 1)[:, None])
        heads, dim = out.shape[1], out.shape[3]
        out = out.view(rows, blocks, heads, window, dim).transpose(1, 2)
        return out.reshape(rows, heads, blocks * window, dim)[:, :, :length]

    def _masked(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        if self.softmax_offset is not None:
            q, k, v = self._with_sink_feature(q, k, v)
            k, v = _with_sink_key(k, v)
            mask = F.pad(mask, (1, 0), value=True)
        return self._attend(q, k, v, mask)

    def _with_sink_feature(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add 8 head dimensions; in the first, a query times the sink key gives the sink's logit.

        Eight, because fused kernels need head dimensions in multiples of it.
        """
        assert self.softmax_offset is not None
        scale = self.scale or q.shape[-1] ** -0.5
        logit = (self.softmax_offset / scale).to(q.dtype)[None, :, None, None]
        feature = F.pad(logit.expand(*q.shape[:3], 1), (0, 7))
        return torch.cat([q, feature], dim=-1), F.pad(k, (0, 8)), F.pad(v, (0, 8))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        extra = 8 if self.softmax_offset is not None else 0
        scale = self.scale or (q.shape[-1] - extra) ** -0.5
        value_dim = v.shape[-1]
        # Fused kernels need one head dimension (latent attention has two).
        width = max(q.shape[-1], value_dim)
        q, k, v = (
            x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v)
        )
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out[..., : value_dim - extra]

    def sharded_state_dict(
        self,
        prefix: str = "",
        sharded_offsets: tuple[tuple[int, int, int], ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> ShardedStateDict:
        """Describe the sinks as sharded over tensor-parallel ranks by head."""
        state = self.state_dict(prefix="", keep_vars=True)
        sharded_axis = {"softmax_offset": 0}
        return make_sharded_tensors_for_checkpoint(state, prefix, sharded_axis, sharded_offsets)


def _layer_window(config: TransformerConfig, layer_number: int) -> int | None:
    """Return how many tokens a query of a layer (from 1) sees, its own included; None: all."""
    if config.window_size is None:
        return None
    full = config.window_attn_skip_freq
    return None if full and layer_number % full == 0 else config.window_size[0] + 1


def _with_sink_key(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Prepend the sink to keys and values: its key is 1 in the sink's dimension, its value 0."""
    sink = F.one_hot(torch.tensor(k.shape[-1] - 8), k.shape[-1]).to(k)
    return torch.cat([sink.expand(*k.shape[:2], 1, -1), k], dim=2), F.pad(v, (0, 0, 1, 0))


def _block_rows(x: Tensor, blocks: int) -> Tensor:
    """Turn each block of the sequence into a row of the batch, [B * blocks, heads, tokens, D]."""
    rows, heads, tokens, dim = x.shape
    blocked = x.reshape(rows, heads, blocks, tokens // blocks, dim)
    return blocked.transpose(1, 2).flatten(0, 1)


def _with_block_before(x: Tensor, blocks: int) -> Tensor:
    """Prepend to each block the one before it; zeros to the first."""
    rows, heads, tokens, dim = x.shape
    block = x.reshape(rows, heads, blocks, tokens // blocks, dim)
    before = F.pad(block, (0, 0, 0, 0, 1, 0))[:, :, :-1]
    return torch.cat([before, block], dim=3).flatten(2, 3)
