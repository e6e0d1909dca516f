"""Kernel set `torch`: attention on torch's fused `scaled_dot_product_attention`.

Shapes: S sequence on this rank, B batch, N heads, G key-value heads, D head dimension; L length
of one document, W sliding window.
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

from moe.model.kv_cache import KeyValueCache


class Attention(nn.Module):
    """Causal attention: over documents, sliding windows, sinks, and `cp` ranks where asked.

    With context parallelism rank r holds chunks r and 2cp-1-r of the sequence (megatron-core's
    balanced order); keys and values are gathered, queries stay (Llama 3, arXiv:2407.21783,
    section 3.3.2).
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
        """Attend: query [S, B, N, D], key and value [S, B, G, D]; returns [S, B, N * D].

        `attention_mask` narrows the causal rule: None does not; bool [B, 1, S, keys] says which
        keys a query may see; int [documents + 1] are borders of documents in the B * S tokens
        laid end to end, which see only themselves.
        """
        assert attention_bias is None and packed_seq_params is None
        if self.cache is not None:
            key, value = self.cache.extend(key, value)
        if self.cp_group.size() > 1:
            key = _gather_sequence(key, self.cp_group)
            value = _gather_sequence(value, self.cp_group)
        q_bnsd, k_bgsd, v_bgsd = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        by_mask = attention_mask is not None and attention_mask.dtype == torch.bool
        if by_mask or query.shape[0] != key.shape[0]:
            mask = self._mask(query.shape[0], key.shape[0], attention_mask, query.device)
            out = self._masked(q_bnsd, k_bgsd, v_bgsd, mask)
        elif attention_mask is not None:
            out = self._by_document(q_bnsd, k_bgsd, v_bgsd, attention_mask)
        else:
            out = self._causal(q_bnsd, k_bgsd, v_bgsd)
        return out.permute(2, 0, 1, 3).flatten(2)

    def _mask(
        self, queries: int, keys: int, allowed: Tensor | None, device: torch.device
    ) -> Tensor:
        """Which keys each query of this rank sees, bool [1 or B, 1, queries, keys]."""
        places = torch.arange(keys, device=device)
        mine = places[keys - queries :]
        if self.cp_group.size() > 1:
            mine = sequence_positions(self.cp_group.size(), queries, device)[self.cp_group.rank()]
        distance = mine[:, None] - places[None, :]
        mask = distance >= 0
        if self.window is not None:
            mask &= distance < self.window
        if allowed is None:
            return mask[None, None]
        if allowed.dtype == torch.bool:
            return mask & allowed
        document = document_numbers(allowed).to(device).view(-1, 1, 1, keys)
        return mask & (document[..., mine].transpose(-2, -1) == document)

    def _by_document(self, q: Tensor, k: Tensor, v: Tensor, borders: Tensor) -> Tensor:
        """Attend within each document alone; no document reaches over a row's end."""
        length, outputs = q.shape[2], []
        for first, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            row, start = divmod(first, length)
            part = slice(start, start + end - first)
            outputs.append(self._causal(*(x[row : row + 1, :, part] for x in (q, k, v))))
        whole_nld = torch.cat(outputs, dim=2)[0]
        return whole_nld.reshape(q.shape[1], q.shape[0], length, -1).transpose(0, 1)

    def _causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend in whole sequences of one length, [B, N, L, D]."""
        if self.window is not None and self.window < q.shape[2]:
            return self._windowed(q, k, v, self.window)
        if self.softmax_offset is None:
            return self._attend(q, k, v, None)
        # A sink is a key before the first, and a query there keeps the square causal.
        q, k, v = self._with_sink_feature(q, k, v)
        q = F.pad(q, (0, 0, 1, 0))
        return self._attend(q, *_with_sink_key(k, v), None)[:, :, 1:]

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """Attend in blocks of W queries to their own and the block before: cost L * 2W."""
        rows, length = q.shape[0], q.shape[2]
        blocks = -(-length // window)
        q, k, v = (F.pad(x, (0, 0, 0, blocks * window - length)) for x in (q, k, v))
        place = torch.arange(blocks * window, device=q.device).view(blocks, window, 1)
        keys = torch.arange(-window, window, device=q.device) + place[:, :1]
        mask = (keys >= 0) & (keys <= place) & (place - keys < window)
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
        """Add 8 dimensions; in the first, a query's product with the sink key gives its logit.

        Eight, since fused kernels want head dimensions in multiples of it.
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
        if value_dim != q.shape[-1]:
            # Fused kernels want one head dimension (latent attention has two).
            v = F.pad(v, (0, q.shape[-1] - value_dim))
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
        """Place the sinks, cut over tensor-parallel ranks by head."""
        state = self.state_dict(prefix="", keep_vars=True)
        cuts = {"softmax_offset": 0}
        return make_sharded_tensors_for_checkpoint(state, prefix, cuts, sharded_offsets)


def _layer_window(config: TransformerConfig, layer_number: int) -> int | None:
    """Return the tokens a layer (counted from 1) sees, itself included; None: all before it."""
    if config.window_size is None:
        return None
    full = config.window_attn_skip_freq
    return None if full and layer_number % full == 0 else config.window_size[0] + 1


def _with_sink_key(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Put the sink before all keys: one in its own dimension, with nothing as its value."""
    sink = F.one_hot(torch.tensor(k.shape[-1] - 8), k.shape[-1]).to(k)
    return torch.cat([sink.expand(*k.shape[:2], 1, -1), k], dim=2), F.pad(v, (0, 0, 1, 0))


def _block_rows(x: Tensor, blocks: int) -> Tensor:
    """Make each block of the sequence a row of the batch: [B * blocks, heads, tokens, D]."""
    rows, heads, tokens, dim = x.shape
    blocked = x.reshape(rows, heads, blocks, tokens // blocks, dim)
    return blocked.transpose(1, 2).flatten(0, 1)


def _with_block_before(x: Tensor, blocks: int) -> Tensor:
    """Put before each block the one that precedes it, zeros before the first."""
    rows, heads, tokens, dim = x.shape
    own = x.reshape(rows, heads, blocks, tokens // blocks, dim)
    before = F.pad(own, (0, 0, 0, 0, 1, 0))[:, :, :-1]
    return torch.cat([before, own], dim=3).flatten(2, 3)


def document_numbers(borders: Tensor) -> Tensor:
    """Return the document of each token, given borders [documents + 1] that begin with 0."""
    return torch.repeat_interleave(torch.diff(borders))


def sequence_positions(cp: int, length: int, device: torch.device | None = None) -> Tensor:
    """Return the sequence positions each context-parallel rank holds, [cp, S]."""
    chunks = torch.arange(cp * length, device=device).view(2 * cp, length // 2)
    ranks = torch.arange(cp, device=device)
    return torch.cat([chunks[ranks], chunks[2 * cp - 1 - ranks]], dim=1)


def _gather_sequence(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    whole: Tensor = _GatherSequence.apply(x, group)  # type: ignore[no-untyped-call]
    return whole


class _GatherSequence(torch.autograd.Function):
    """Gather [S, ...] of all ranks in sequence order; sum gradients back to their owner."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(x) for _ in range(group.size())]
        dist.all_gather(parts, x.contiguous(), group=group)
        order = sequence_positions(group.size(), x.shape[0], x.device).flatten()
        whole = torch.empty(order.numel(), *x.shape[1:], dtype=x.dtype, device=x.device)
        whole[order] = torch.cat(parts)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        length = total.shape[0] // ctx.group.size()
        positions = sequence_positions(ctx.group.size(), length, total.device)
        return total[positions[ctx.group.rank()]], None
