"""A model that continues sequences token by token, reading each token once.

Prompts of different lengths are padded on the left, so that all sequences grow together. Rotary
embeddings encode differences of positions alone (arXiv:2104.09864, section 3.3), so the common
positions of a padded batch change nothing but the padding, which the mask hides.

Shapes: B sequences, S new tokens, L tokens so far, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from moe.model.attention import Attention
from moe.model.kv_cache import KeyValueCache


class CachedModel:
    """Continues B left-padded sequences; every layer's keys and values are kept."""

    def __init__(self, chunk: Any, paddings: Sequence[int]) -> None:
        self._chunk = chunk
        device = next(chunk.parameters()).device
        self._paddings_b = torch.tensor(paddings, device=device)
        self._is_padded = any(paddings)
        self.length = 0
        """Tokens read so far, padding included; the position of the next."""

    def next_logits(self, tokens_bs: Tensor) -> Tensor:
        """Read S more tokens of every sequence; returns the logits after the last, [B, V]."""
        end = self.length + tokens_bs.shape[1]
        queries = torch.arange(self.length, end, device=tokens_bs.device)
        mask = self._mask(queries, end) if self._is_padded else None
        logits: Tensor = self._chunk(tokens_bs, queries.expand(tokens_bs.shape), mask)
        self.length = end
        return logits[:, -1].float()

    def _mask(self, queries: Tensor, num_keys: int) -> Tensor:
        """Which keys are text of the same sequence, [B, 1, S, keys].

        A padding token sees itself: a softmax over nothing would be NaN, and spread.
        """
        keys = torch.arange(num_keys, device=queries.device)
        return (keys >= self._paddings_b[:, None, None, None]) | (keys == queries[:, None])


@contextmanager
def cached_model(chunk: Any, paddings: Sequence[int], capacity: int) -> Iterator[CachedModel]:
    """Let a whole model (one chunk) continue sequences of up to `capacity` tokens.

    Args:
        chunk: The model, of the torch kernel set.
        paddings: For each of B sequences, the padding tokens on its left.
        capacity: Most tokens of a sequence, padding, prompt and continuation together.
    """
    model = CachedModel(chunk, paddings)

    def shift(_module: Any, args: Any, values: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, values | {"offset": model.length}

    layers = [module for module in chunk.modules() if isinstance(module, Attention)]
    rotary = {m.rotary_pos_emb for m in chunk.modules() if hasattr(m, "rotary_pos_emb")} - {None}
    hooks = [module.register_forward_pre_hook(shift, with_kwargs=True) for module in rotary]
    for layer in layers:
        layer.cache = KeyValueCache(capacity)
    try:
        yield model
    finally:
        for layer in layers:
            layer.cache = None
        for hook in hooks:
            hook.remove()
