"""Incremental decoding: extend sequences token by token with a KV cache.

Prompts of different lengths are padded on the left, so that all sequences end at the same position.
Rotary embeddings encode only differences of positions (arXiv:2104.09864, section 3.3), so the
shifted positions of a padded row change nothing but the padding, which the mask hides.

Shapes: B sequences, S new tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from moe.model.attention import Attention
from moe.model.kv_cache import KeyValueCache


class IncrementalDecoder:
    """Extends B left-padded sequences; every layer caches its keys and values."""

    def __init__(self, chunk: Any, paddings: Sequence[int]) -> None:
        self._chunk = chunk
        device = next(chunk.parameters()).device
        self._paddings_b = torch.tensor(paddings, device=device)
        self._is_padded = any(paddings)
        self.length = 0
        """Tokens processed so far, padding included; the position of the next token."""

    def next_logits(self, tokens_bs: Tensor) -> Tensor:
        """Process S more tokens of every sequence; return logits after the last, FP32 [B, V]."""
        end = self.length + tokens_bs.shape[1]
        queries = torch.arange(self.length, end, device=tokens_bs.device)
        mask, padding_mask = None, None
        if self._is_padded:
            mask = self._mask(queries, end)
            padding_mask = queries < self._paddings_b[:, None]
        logits: Tensor = self._chunk(
            tokens_bs, queries.expand(tokens_bs.shape), mask, padding_mask=padding_mask
        )
        self.length = end
        return logits[:, -1].float()

    def _mask(self, queries: Tensor, num_keys: int) -> Tensor:
        """Return which keys are not padding, bool [B, 1, S, keys].

        A padding token sees itself: a softmax over no keys would be NaN, and spread.
        """
        keys = torch.arange(num_keys, device=queries.device)
        return (keys >= self._paddings_b[:, None, None, None]) | (keys == queries[:, None])


@contextmanager
def incremental_decoder(
    chunk: Any, paddings: Sequence[int], capacity: int
) -> Iterator[IncrementalDecoder]:
    """Decode with a model for the time of the block; its layers have KV caches inside it.

    Args:
        chunk: A complete model (one chunk) of kernel set `torch`.
        paddings: Number of padding tokens on the left of each of B sequences.
        capacity: Most tokens of a sequence: padding, prompt and continuation together.
    """
    decoder = IncrementalDecoder(chunk, paddings)

    def shift(_module: Any, args: Any, values: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, values | {"offset": decoder.length}

    layers = [module for module in chunk.modules() if isinstance(module, Attention)]
    rotary = {m.rotary_pos_emb for m in chunk.modules() if hasattr(m, "rotary_pos_emb")} - {None}
    hooks = [module.register_forward_pre_hook(shift, with_kwargs=True) for module in rotary]
    for layer in layers:
        layer.cache = KeyValueCache(capacity)
    try:
        yield decoder
    finally:
        for layer in layers:
            layer.cache = None
        for hook in hooks:
            hook.remove()
