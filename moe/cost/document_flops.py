"""Training FLOPs of the documents of a step: what a document mask leaves of the ledger's count.

The ledger's convention (ledger.py) takes one sequence of the whole length. A document mask lets a
token see its own document only, and padding is not trained on: both are work that is not done.

- Without a mask a row of n tokens counts as the ledger counts a sequence of n.
- With one, a document of n tokens has n (n + 1) / 2 pairs of query and key, and with a window w < n
  only w (w + 1) / 2 + (n - w) w.
- Depth d of multi-token prediction then predicts n - d times in a document of n tokens: a
  prediction across its end does not count in the loss.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from moe.config.model import ModelConfig
from moe.cost.ledger import attention_flops_per_key, ledger

Lengths = NDArray[np.int64]


class DocumentFlops:
    """Counts a model's training FLOPs on sequences and documents of given lengths."""

    def __init__(self, model: ModelConfig) -> None:
        shortest = ledger(model, 1)
        self._model = model
        self._per_key = attention_flops_per_key(model)
        self._per_token = 6 * shortest.active_matmul_parameters
        prediction = [c for c in shortest.components if c.name.startswith("MTP layer")]
        # A sequence of one token has half a key by the ledger's convention.
        self._per_prediction = [c.training_flops_per_token - self._per_key // 2 for c in prediction]
        self._row_flops = cache(
            lambda length: length * ledger(model, length).training_flops_per_token
        )

    def of_rows(self, lengths: Lengths) -> int:
        """Return the FLOPs of rows of `lengths` tokens whose tokens see all before them."""
        sizes, numbers = np.unique(lengths[lengths > 0], return_counts=True)
        rows = zip(sizes.tolist(), numbers.tolist(), strict=True)
        return sum(number * self._row_flops(size) for size, number in rows)

    def of_documents(self, lengths: Lengths) -> int:
        """Return the FLOPs of documents of `lengths` tokens that see only themselves."""
        windows = self._model.layer_windows
        pairs = sum(visible_pairs(lengths, window) for window in windows)
        flops = self._per_token * int(lengths.sum()) + self._per_key * pairs
        for depth, per_prediction in enumerate(self._per_prediction, start=1):
            predicting = np.maximum(lengths - depth, 0)
            pairs = visible_pairs(predicting, windows[-1])
            flops += per_prediction * int(predicting.sum()) + self._per_key * pairs
        return flops


def visible_pairs(lengths: Lengths, window: int | None) -> int:
    """Return the pairs of query and key, the token's own included, in documents of `lengths`."""
    near = lengths if window is None else np.minimum(lengths, window)
    return int((near * (near + 1) // 2 + (lengths - near) * near).sum())
