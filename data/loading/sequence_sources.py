"""The sequences of one source: concatenated and chunked, packed, or conversations."""

from typing import Protocol

from data.config import DataConfig
from data.loading.conversations import Examples, open_conversations
from data.loading.packing import PackedStream
from data.loading.row_buffers import RowBuffers
from data.store.manifest import SplitName
from data.store.reader import Store, TokenStream


class SequenceSource(Protocol):
    """The sequences of one source, by number."""

    name: str

    def __len__(self) -> int:
        """Return the number of sequences."""

    def fill(self, sample: int, rows: RowBuffers, row: int) -> None:
        """Fill one row with sequence `sample`."""


class ChunkedStream:
    """Concatenate and chunk: sequence j is tokens [j * S, j * S + S], inputs and their labels."""

    def __init__(self, stream: TokenStream, seq_len: int, eos_id: int | None) -> None:
        """Chunk a stream; `eos_id` marks ends of documents, None leaves them unmarked."""
        self.name = stream.name
        self._stream, self._seq_len, self._eos_id = stream, seq_len, eos_id

    def __len__(self) -> int:
        """Return the number of sequences."""
        return max(self._stream.num_tokens - 1, 0) // self._seq_len

    def fill(self, sample: int, rows: RowBuffers, row: int) -> None:
        """Fill one row."""
        window = self._stream.read(sample * self._seq_len, self._seq_len + 1)
        rows.tokens[row] = window[:-1]
        rows.labels[row] = window[1:]
        if self._eos_id is not None:
            rows.mark_ends(window[:-1] == self._eos_id, row)


def open_sources(
    store: Store,
    config: DataConfig,
    seq_len: int,
    split: SplitName,
    examples: Examples,
    *,
    is_first: bool = True,
) -> list[SequenceSource]:
    """Open the sources of one store's split; those of further stores are named `STORE/SOURCE`."""
    eos_id = store.manifest.tokenizer.eos_id if config.document_mask else None
    sources: list[SequenceSource] = []
    for stream in store.split(split).streams:
        source: SequenceSource
        if examples != "text":
            source = open_conversations(store, stream, split, seq_len, examples, config.too_long)
        elif config.packing == "concatenate" or not stream.num_documents:
            source = ChunkedStream(stream, seq_len, eos_id)
        else:
            source = PackedStream(store, stream, split, seq_len)
        if not is_first:
            source.name = f"{store.path.name}/{stream.name}"
        sources.append(source)
    return sources
