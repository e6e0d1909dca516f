"""Best-fit packing: whole documents in each sequence, from an index made once per length.

Ding et al., "Fewer Truncations Improve Language Modeling" (arXiv:2404.10830): documents longer
than a sequence are cut into chunks of its length; then chunks go, longest first, into the fullest
sequence that still has room. A document of n tokens, its end included, takes n - 1 positions: its
last token is only ever a label. Documents are packed a million at a time, in bounded memory.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.described_files import DescribedFiles, read_text_file
from data.errors import DataError
from data.frozen_model import FrozenModel
from data.loading.row_buffers import RowBuffers
from data.storage.atomic import atomic_file, write_text
from data.storage.bounded_json import parse_json
from data.storage.checksums import HashingFile
from data.store.manifest import HELD_OUT, TRAIN, FileInfo, SplitName
from data.store.reader import Store, TokenStream, arrow_view, open_arrow

WINDOW_DOCUMENTS = 1 << 20
BATCH_SEQUENCES = 1 << 16
SCHEMA = pa.schema(
    [
        pa.field("starts", pa.list_(pa.int64()), nullable=False),
        pa.field("lengths", pa.list_(pa.int32()), nullable=False),
    ]
)

Indices = NDArray[np.int64]


class PackingInfo(FrozenModel):
    """What packing one source and split costs and saves; its presence makes the index complete."""

    source: str
    split: SplitName
    seq_len: int
    documents: int
    padding_share: float
    """Positions that hold no token, of all."""
    cut_share: float
    """Documents that are cut, of all: those longer than a sequence."""
    cut_share_concatenated: float
    """Documents that concatenating and chunking would cut, of all."""
    index: FileInfo
    """The index's file; its rows are sequences."""
    document_table_sha256: str
    """Hash of the table of documents it was made from."""

    @classmethod
    def read(cls, store: Store, stream: TokenStream, split: SplitName, seq_len: int) -> Self:
        """Read what `pack_store` wrote.

        Raises:
            DataError: It was not made, is damaged, or was made from another state of the store.
        """
        path = _info_path(store, stream, split, seq_len)
        remedy = f"run `moe data pack {store.path} --seq-len {seq_len}`"
        if not path.is_file():
            raise DataError(f"{path}: missing, and data.packing is best_fit: {remedy}")
        try:
            info = cls.model_validate(parse_json(read_text_file(path)))
            found = DescribedFiles(store.path).status(info.index.file).st_size
        except DataError:
            raise
        except (OSError, ValueError):
            raise DataError(f"{path}: damaged, or its index is missing: {remedy}") from None
        if info.document_table_sha256 != stream.table_sha256 or found != info.index.num_bytes:
            raise DataError(f"{path}: made from another store: {remedy}")
        return info


def _info_path(store: Store, stream: TokenStream, split: SplitName, seq_len: int) -> Path:
    return store.path / "packing" / f"{stream.name}-{split}-{seq_len}.json"


def pack_store(store: Store, seq_len: int) -> list[PackingInfo]:
    """Write the packing index of every source and split for sequences of `seq_len` tokens.

    Raises:
        DataError: `seq_len` is below one.
    """
    if seq_len < 1:
        raise DataError(f"--seq-len {seq_len}: a sequence has at least one token")
    splits: tuple[SplitName, ...] = (TRAIN, HELD_OUT)
    return [
        _pack_stream(store, stream, split, seq_len)
        for split in splits
        for stream in store.split(split).streams
        if stream.num_documents
    ]


def _pack_stream(store: Store, stream: TokenStream, split: SplitName, seq_len: int) -> PackingInfo:
    path = _info_path(store, stream, split, seq_len)
    path.parent.mkdir(parents=True, exist_ok=True)
    index_file = path.with_suffix(".arrow")
    positions = cut = cut_concatenated = sequences = 0
    with atomic_file(index_file) as file:
        hashing = HashingFile(file)
        with pa.ipc.new_file(hashing, SCHEMA) as writer:
            for begin, end in stream.document_windows(WINDOW_DOCUMENTS):
                starts, lengths, sizes = _packed(begin, end, seq_len)
                for batch in _batches(starts, lengths, sizes):
                    writer.write_batch(batch)
                sequences += sizes.size
                positions += int(lengths.sum())
                cut += int((end - begin - 1 > seq_len).sum())
                last = np.maximum(end - 2, begin)
                cut_concatenated += int((last // seq_len > begin // seq_len).sum())
    info = PackingInfo(
        source=stream.name,
        split=split,
        seq_len=seq_len,
        documents=stream.num_documents,
        padding_share=1 - positions / (sequences * seq_len) if sequences else 0.0,
        cut_share=cut / stream.num_documents,
        cut_share_concatenated=cut_concatenated / stream.num_documents,
        index=FileInfo(
            file=str(index_file.relative_to(store.path)),
            rows=sequences,
            num_bytes=hashing.num_bytes,
            sha256=hashing.sha256,
        ),
        document_table_sha256=stream.table_sha256,
    )
    write_text(path, json.dumps(info.model_dump(mode="json"), indent=1) + "\n")
    return info


def best_fit(lengths: Indices, capacity: int) -> Indices:
    """Return the bin of each chunk, by best-fit decreasing; every length is in 1..capacity.

    Equal lengths are placed together: the fullest bin with room for one is filled with as many as
    it takes, which is what placing them one by one does.
    """
    bins = np.empty(lengths.size, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    boundaries = np.flatnonzero(np.diff(lengths[order])) + 1
    free: dict[int, list[int]] = {}
    rooms = 0  # bit r is set where some bin has r positions left
    num_bins = 0
    for chunks in np.split(order, boundaries) if lengths.size else []:
        length = int(lengths[chunks[0]])
        done = 0
        while done < chunks.size:
            fitting = rooms >> length
            remaining = chunks.size - done
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                needed = -(-remaining // (room // length))
                chosen = [free[room].pop() for _ in range(min(needed, len(free[room])))]
                if not free[room]:
                    rooms ^= 1 << room
            else:
                room = capacity
                needed = -(-remaining // (room // length))
                chosen = list(range(num_bins, num_bins + needed))
                num_bins += needed
            each = room // length
            placed = min(remaining, each * len(chosen))
            bins[chunks[done : done + placed]] = np.repeat(chosen, each)[:placed]
            done += placed
            for bin_index, count in _fillings(chosen, each, placed):
                if rest := room - count * length:
                    free.setdefault(rest, []).append(bin_index)
                    rooms |= 1 << rest
    return bins


def _fillings(chosen: list[int], each: int, placed: int) -> Iterator[tuple[int, int]]:
    """Yield each chosen bin with the number of chunks placed in it."""
    for index, bin_index in enumerate(chosen):
        yield bin_index, min(each, placed - index * each)


def _packed(begin: Indices, end: Indices, seq_len: int) -> tuple[Indices, Indices, Indices]:
    """Return chunks in order of their sequence (starts, lengths), and chunks of each sequence."""
    starts, lengths = _chunks(begin, end, seq_len)
    bins = best_fit(lengths, seq_len)
    order = np.argsort(bins, kind="stable")
    return starts[order], lengths[order], np.bincount(bins)


def _chunks(begin: Indices, end: Indices, seq_len: int) -> tuple[Indices, Indices]:
    positions = end - begin - 1
    counts = -(-positions // seq_len)
    document = np.repeat(np.arange(begin.size), counts)
    number = np.arange(document.size) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = number * seq_len
    return begin[document] + offset, np.minimum(positions[document] - offset, seq_len)


def _batches(starts: Indices, lengths: Indices, sizes: Indices) -> Iterator[Any]:
    boundaries = np.concatenate([[0], np.cumsum(sizes)])
    for first in range(0, sizes.size, BATCH_SEQUENCES):
        some = boundaries[first : first + BATCH_SEQUENCES + 1]
        here = slice(some[0], some[-1])
        offsets = pa.array((some - some[0]).astype(np.int32))
        values = (pa.array(starts[here]), pa.array(lengths[here].astype(np.int32)))
        columns = [pa.ListArray.from_arrays(offsets, column) for column in values]
        yield pa.record_batch(columns, schema=SCHEMA)


class PackedStream:
    """The sequences of one source and split, from its packing index."""

    def __init__(self, store: Store, stream: TokenStream, split: SplitName, seq_len: int) -> None:
        """Open the index; raises DataError as `PackingInfo.read` does."""
        self.name = stream.name
        self.info = PackingInfo.read(store, stream, split, seq_len)
        self._stream = stream
        self._eos_id = store.manifest.tokenizer.eos_id
        reader = open_arrow(store.path / self.info.index.file)
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._starts: list[int] = [0, *accumulate(batch.num_rows for batch in self._batches)]

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self._starts[-1]

    def fill(self, sample: int, rows: RowBuffers, row: int) -> None:
        """Fill a row with the chunks of its sequence, and pad it."""
        index = bisect_right(self._starts, sample) - 1
        entry = sample - self._starts[index]
        starts, lengths = (column[entry].values for column in self._batches[index].columns)
        filled = 0
        chunks = zip(arrow_view(starts).tolist(), arrow_view(lengths).tolist(), strict=True)
        for start, length in chunks:
            window = self._stream.read(start, length + 1)
            rows.tokens[row, filled : filled + length] = window[:-1]
            rows.labels[row, filled : filled + length] = window[1:]
            rows.starts[row, filled] = True
            filled += length
        rows.pad(filled, self._eos_id, row)
