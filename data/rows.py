"""A batch on its way: the arrays that sources fill row by row."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """B rows of S positions; see `data.loader.Batch` for each field. Any types that hold them."""

    tokens: NDArray[Any]
    labels: NDArray[Any]
    loss_mask: NDArray[Any]
    """Comes as ones."""
    position_ids: NDArray[Any]
    """Comes as the position in the row."""
    starts: NDArray[np.bool_]
    """Where a document begins inside a row; comes as False, read under `document_mask` only."""

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
        )

    def mark_ends(self, ends: NDArray[np.bool_], row: int) -> None:
        """Mark where documents end in a row [S]: outside the loss, the next position a start."""
        self.loss_mask[row, ends] = 0
        self.starts[row, 1:] = ends[:-1]

    def restart_positions(self) -> NDArray[np.int32]:
        """Restart positions at each document; returns the borders, int32 [documents + 1].

        Borders lie in the B * S positions laid end to end, and at every start of a row.
        """
        self.starts[:, 0] = True
        borders = np.append(np.flatnonzero(self.starts), self.starts.size)
        flat = self.position_ids.reshape(-1)
        flat[:] = np.arange(flat.size) - np.repeat(borders[:-1], np.diff(borders))
        return borders.astype(np.int32)
