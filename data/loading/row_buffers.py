"""The arrays of a batch that sources fill row by row."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowBuffers:
    """B rows of S positions; see `Batch` for each field. Types may be any that hold the values."""

    tokens: NDArray[Any]
    labels: NDArray[Any]
    loss_mask: NDArray[Any]
    """Initially 1."""
    position_ids: NDArray[Any]
    """Initially the position in the row."""
    starts: NDArray[np.bool_]
    """Where a document starts inside a row; initially False, read under `document_mask` only."""
    lengths: NDArray[np.int64]
    """Positions of each row that hold tokens [B], the rest is padding; initially S."""

    @classmethod
    def narrow(cls, num_rows: int, seq_len: int, dtype: str) -> Self:
        """Allocate rows: tokens in the store's type, other fields in the smallest that serve."""
        shape = (num_rows, seq_len)
        return cls(
            tokens=np.empty(shape, dtype=dtype),
            labels=np.empty(shape, dtype=dtype),
            loss_mask=np.ones(shape, dtype=np.uint8),
            position_ids=np.tile(np.arange(seq_len, dtype=np.int32), (num_rows, 1)),
            starts=np.zeros(shape, dtype=np.bool_),
            lengths=np.full(num_rows, seq_len, dtype=np.int64),
        )

    def mark_ends(self, ends: NDArray[np.bool_], row: int) -> None:
        """Mark where documents end in a row [S]: outside the loss, the next position a start."""
        self.loss_mask[row, ends] = 0
        self.starts[row, 1:] = ends[:-1]

    def pad(self, filled: int, eos_id: int, row: int) -> None:
        """Fill a row from `filled` on with end tokens outside the loss, a document of their own."""
        self.tokens[row, filled:] = self.labels[row, filled:] = eos_id
        self.loss_mask[row, filled:] = 0
        self.starts[row, filled : filled + 1] = True
        self.lengths[row] = filled

    def restart_positions(self) -> NDArray[np.int32]:
        """Restart positions at each document; returns `cu_seqlens`, int32 [documents + 1].

        They are document boundaries in the B * S concatenated positions; each row starts with one.
        """
        self.starts[:, 0] = True
        cu_seqlens = np.append(np.flatnonzero(self.starts), self.starts.size)
        flat = self.position_ids.reshape(-1)
        flat[:] = np.arange(flat.size) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))
        return cu_seqlens.astype(np.int32)
