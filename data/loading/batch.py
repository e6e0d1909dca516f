"""The micro-batches that the loader yields."""

import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from data.loading.row_buffers import RowBuffers


@dataclass(frozen=True)
class Batch:
    """One micro-batch of B sequences of S tokens, on the CPU (`feed = "dali"`: on its device).

    Position s of a sequence predicts `labels[b, s]` from `tokens[b, : s + 1]`.
    """

    tokens: torch.Tensor
    """Input ids, int64 [B, S]."""
    labels: torch.Tensor
    """Next token of each position, int64 [B, S]."""
    loss_mask: torch.Tensor
    """1 where the position counts in the loss, else 0; float32 [B, S]."""
    position_ids: torch.Tensor
    """Position in the sequence, or in the document under `document_mask`; int64 [B, S]."""
    cu_seqlens: torch.Tensor | None
    """Under `document_mask`: document boundaries in the B * S concatenated tokens, int32
    [documents + 1], first 0 and last B * S; every start of a sequence is one."""
    lengths: torch.Tensor
    """Positions of each sequence that hold tokens, the rest is padding; int64 [B], on the CPU."""
    sources: torch.Tensor
    """Source of each sequence, as index into `Loader.sources`; int64 [B], on the CPU."""

    @classmethod
    def empty(cls, num_rows: int, seq_len: int, pin_memory: bool) -> Self:
        """Allocate a batch: no tokens yet, every position in the loss, positions from 0."""
        shape = (num_rows, seq_len)
        positions = torch.empty(shape, dtype=torch.int64, pin_memory=pin_memory)
        positions[:] = torch.arange(seq_len)
        return cls(
            tokens=torch.empty(shape, dtype=torch.int64, pin_memory=pin_memory),
            labels=torch.empty(shape, dtype=torch.int64, pin_memory=pin_memory),
            loss_mask=torch.ones(shape, dtype=torch.float32, pin_memory=pin_memory),
            position_ids=positions,
            cu_seqlens=None,
            lengths=torch.full((num_rows,), seq_len),
            sources=torch.zeros(num_rows, dtype=torch.int64),
        )

    @property
    def padding_mask(self) -> torch.Tensor | None:
        """True at padding, bool [B, S], where the tokens are; None where no sequence is padded.

        Padding is what follows a sequence's tokens: no loss counts it and no token sees it. What
        sums over positions (routing, FLOPs, rates) leaves it out.
        """
        seq_len = self.tokens.shape[1]
        if bool((self.lengths == seq_len).all()):
            return None
        mask = torch.arange(seq_len) >= self.lengths[:, None]
        return mask.to(self.tokens.device)

    @property
    def document_lengths(self) -> torch.Tensor:
        """Tokens of each document under `document_mask`, else of each sequence; int64, on the CPU.

        A token sees none outside its own. Padding is left out.
        """
        if self.cu_seqlens is None:
            return self.lengths
        starts, sizes = self.cu_seqlens[:-1].long(), self.cu_seqlens.long().diff()
        seq_len = self.tokens.shape[1]
        # Padding is a document of its own behind a sequence's tokens.
        return sizes[starts % seq_len < self.lengths[starts // seq_len]]

    def checksum(self) -> int:
        """Return the sum of the sequences' CRC-32: what is trained, in whatever order."""
        return sum(zlib.crc32(row.tobytes()) for row in self.tokens.cpu().numpy())

    def rows(self) -> RowBuffers:
        """Return the same memory as arrays to fill."""
        return RowBuffers(
            self.tokens.numpy(),
            self.labels.numpy(),
            self.loss_mask.numpy(),
            self.position_ids.numpy(),
            np.zeros(self.tokens.shape, dtype=np.bool_),
            self.lengths.numpy(),
        )
