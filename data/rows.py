"""A batch on its way: the arrays that sources fill row by row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """B rows of S positions; see `data.loader.Batch` for each field."""

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]
    loss_mask: NDArray[np.float32]
    """Comes as ones."""
    position_ids: NDArray[np.int64]
    """Comes as the position in the row."""
    starts: NDArray[np.bool_]
    """Where a document begins inside a row; comes as False, read under `document_mask` only."""

    def mark_ends(self, ends: NDArray[np.bool_], row: int) -> None:
        """Mark where documents end in a row [S]: outside the loss, the next position a start."""
        self.loss_mask[row, ends] = 0.0
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
