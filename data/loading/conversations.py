"""Conversations as the sequences of a run, packed or in pairs; only answers enter the loss.

A conversation of n tokens takes n - 1 positions: its last token is only ever a label.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.loading.packing import best_fit
from data.loading.row_buffers import RowBuffers
from data.store.manifest import SplitName
from data.store.reader import Store, TokenStream

Examples = Literal["text", "conversations", "pairs"]
TooLong = Literal["refuse", "cut", "drop"]
Indices = NDArray[np.int64]


class _ConversationSource:
    """The conversations of one source that fit sequences of a length."""

    def __init__(
        self, store: Store, stream: TokenStream, split: SplitName, seq_len: int, too_long: TooLong
    ) -> None:
        """Open a stream.

        Raises:
            DataError: Conversations are too long, and `too_long` is `refuse`.
        """
        self.name = stream.name
        self._stream = stream
        self._eos_id = store.manifest.tokenizer.eos_id
        self._answer_starts, self._answer_ends = stream.answers
        begins = np.concatenate([np.zeros(1, np.int64), stream.ends[:-1]])[: stream.num_documents]
        lengths = stream.ends - begins - 1
        long = lengths > seq_len
        if too_long == "refuse" and long.any():
            raise DataError(
                f"{store.path}: {long.sum()} of {long.size} {split} conversations of"
                f" {stream.name} are longer than train.seq_len={seq_len} (the longest:"
                f' {lengths.max()}): raise it, or set data.too_long = "cut" or "drop"'
            )
        self._begins = begins
        self._lengths = np.minimum(lengths, seq_len)
        """Positions of each conversation."""
        first_answers = self._answer_starts[np.searchsorted(self._answer_starts, begins)]
        self._usable = first_answers <= begins + self._lengths
        """Whether an answer remains of each conversation."""
        if too_long == "drop":
            self._usable &= ~long

    def _write(self, document: int, rows: RowBuffers, row: int, filled: int) -> int:
        """Write a conversation to a row from position `filled` on; returns where it ends."""
        begin, length = int(self._begins[document]), int(self._lengths[document])
        window = self._stream.read(begin, length + 1)
        here = slice(filled, filled + length)
        rows.tokens[row, here] = window[:-1]
        rows.labels[row, here] = window[1:]
        rows.loss_mask[row, here] = self._is_answer(begin + 1, length)
        rows.starts[row, filled] = True
        return filled + length

    def _is_answer(self, first: int, length: int) -> NDArray[np.float32]:
        """Return 1 for the tokens [first, first + length) that are answers, else 0."""
        mask = np.zeros(length, np.float32)
        begin = np.searchsorted(self._answer_ends, first, side="right")
        end = np.searchsorted(self._answer_starts, first + length)
        spans = zip(self._answer_starts[begin:end], self._answer_ends[begin:end], strict=True)
        for start, stop in spans:
            mask[max(start - first, 0) : stop - first] = 1.0
        return mask


class PackedConversations(_ConversationSource):
    """Sequences of complete conversations, packed by best fit (arXiv:2404.10830)."""

    def __init__(
        self, store: Store, stream: TokenStream, split: SplitName, seq_len: int, too_long: TooLong
    ) -> None:
        """Pack a stream."""
        super().__init__(store, stream, split, seq_len, too_long)
        usable = np.flatnonzero(self._usable)
        bins = best_fit(self._lengths[usable], seq_len)
        self._documents = usable[np.argsort(bins, kind="stable")]
        self._boundaries = np.concatenate([[0], np.cumsum(np.bincount(bins))])

    def __len__(self) -> int:
        """Return the number of sequences."""
        return len(self._boundaries) - 1

    def fill(self, sample: int, rows: RowBuffers, row: int) -> None:
        """Fill a row."""
        filled = 0
        for document in self._documents[self._boundaries[sample] : self._boundaries[sample + 1]]:
            filled = self._write(document, rows, row, filled)
        rows.pad(filled, self._eos_id, row)


class ConversationPairs(_ConversationSource):
    """Pairs of conversations, each on a row of its own: the chosen one, then the rejected."""

    def __init__(
        self, store: Store, stream: TokenStream, split: SplitName, seq_len: int, too_long: TooLong
    ) -> None:
        """Open a stream of pairs."""
        super().__init__(store, stream, split, seq_len, too_long)
        self._pairs = np.flatnonzero(self._usable[0::2] & self._usable[1::2])

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._pairs)

    def fill(self, sample: int, rows: RowBuffers, row: int) -> None:
        """Fill a row with conversation `sample % 2` of pair `sample // 2`."""
        document = 2 * self._pairs[sample // 2] + sample % 2
        rows.pad(self._write(document, rows, row, 0), self._eos_id, row)


def open_conversations(
    store: Store,
    stream: TokenStream,
    split: SplitName,
    seq_len: int,
    examples: Literal["conversations", "pairs"],
    too_long: TooLong,
) -> PackedConversations | ConversationPairs:
    """Open one source of a conversation store.

    Raises:
        DataError: The store holds something else, or conversations too long.
    """
    chat = store.manifest.chat
    if chat is None or chat.kind != examples:
        held = "text" if chat is None else chat.kind
        mode = "sft" if examples == "conversations" else "dpo"
        raise DataError(
            f'{store.path}: holds {held}, and train.mode = "{mode}" learns from {examples}: build'
            " a store of them with `moe data chat`"
        )
    kind = PackedConversations if examples == "conversations" else ConversationPairs
    return kind(store, stream, split, seq_len, too_long)
