"""The KV cache of one attention layer."""

import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values of one layer, for up to `capacity` tokens of each of B sequences.

    Shapes: S new tokens, B sequences, G key-value heads, D head dimension.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, key_sbgd: Tensor, value_sbgd: Tensor) -> tuple[Tensor, Tensor]:
        """Append new tokens; return keys and values of all tokens so far, [length, B, G, D]."""
        if self._keys is None or self._values is None:
            self._keys = _allocate(key_sbgd, self.capacity)
            self._values = _allocate(value_sbgd, self.capacity)
        end = self.length + key_sbgd.shape[0]
        self._keys[self.length : end] = key_sbgd
        self._values[self.length : end] = value_sbgd
        self.length = end
        return self._keys[:end], self._values[:end]


def _allocate(like: Tensor, capacity: int) -> Tensor:
    return torch.empty(capacity, *like.shape[1:], dtype=like.dtype, device=like.device)
