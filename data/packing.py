"""Best-fit packing: whole documents in each sequence, from an index made once per length.

Ding et al., "Fewer Truncations Improve Language Modeling" (arXiv:2404.10830): documents longer
than a sequence are cut into pieces of its length, then pieces go, longest first, into the fullest
sequence that still has room. A document of n tokens, its end included, takes n - 1 positions: its
last token is only ever a label.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.errors import DataError
from data.files import whole_file
from data.manifest import SplitName
from data.rows import Rows
from data.store import Store, TokenStream, open_arrow

WINDOW_DOCUMENTS = 1 << 20
BATCH_SEQUENCES = 1 << 16
TABLE_KEY = b"document_table_sha256"
SCHEMA = pa.schema(
    [
        pa.field("starts", pa.list_(pa.int64()), nullable=False),
        pa.field("lengths", pa.list_(pa.int32()), nullable=False),
    ]
)

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PackingReport:
    """What packing one source and split costs and saves; shares are of 1."""

    source: str
    split: str
    sequences: int
    documents: int
    padding_share: float
    """Positions that hold no token."""
    cut_share: float
    """Documents cut because they are longer than a sequence."""
    cut_share_concatenated: float
    """Documents that concatenate-and-chunk would cut."""


def pack_store(store: Store, seq_len: int) -> list[PackingReport]:
    """Write the packing index of every source and split for sequences of `seq_len` tokens."""
    reports = []
    for source in store.manifest.sources:
        for split, info in source.splits.items():
            if not info.documents:
                continue
            stream = next(s for s in store.split(split).streams if s.name == source.name)
            path = index_path(store.path, source.name, split, seq_len)
            path.parent.mkdir(parents=True, exist_ok=True)
            schema = SCHEMA.with_metadata({TABLE_KEY: info.document_table.sha256})
            sequences = 0
            with whole_file(path) as file, pa.ipc.new_file(file, schema) as writer:
                for starts, lengths, sizes in _packed_windows(stream.ends, seq_len):
                    sequences += sizes.size
                    for batch in _batches(starts, lengths, sizes, schema):
                        writer.write_batch(batch)
            reports.append(_report(source.name, split, stream.ends, seq_len, sequences))
    return reports


def index_path(store: Path, source: str, split: str, seq_len: int) -> Path:
    """Return where the packing index of a source and split lies."""
    return store / "packing" / f"{source}-{split}-{seq_len}.arrow"


def best_fit(lengths: Indices, capacity: int) -> Indices:
    """Return the bin of each piece, by best-fit decreasing; every length is in 1..capacity.

    Equal lengths are placed together: the fullest bin with room for one is filled with as many as
    it takes, which is what placing them one by one does.
    """
    bins = np.empty(lengths.size, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    borders = np.flatnonzero(np.diff(lengths[order])) + 1
    free: dict[int, list[int]] = {}
    rooms = 0  # bit r is set where some bin has r positions left
    num_bins = 0
    for pieces in np.split(order, borders) if lengths.size else []:
        length = int(lengths[pieces[0]])
        done = 0
        while done < pieces.size:
            fitting = rooms >> length
            left = pieces.size - done
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                needed = -(-left // (room // length))
                chosen = [free[room].pop() for _ in range(min(needed, len(free[room])))]
                if not free[room]:
                    rooms ^= 1 << room
            else:
                room = capacity
                needed = -(-left // (room // length))
                chosen = list(range(num_bins, num_bins + needed))
                num_bins += needed
            each = room // length
            taken = min(left, each * len(chosen))
            bins[pieces[done : done + taken]] = np.repeat(chosen, each)[:taken]
            done += taken
            for bin_index, count in _fillings(chosen, each, taken):
                if rest := room - count * length:
                    free.setdefault(rest, []).append(bin_index)
                    rooms |= 1 << rest
    return bins


def _fillings(chosen: list[int], each: int, taken: int) -> Iterator[tuple[int, int]]:
    for place, bin_index in enumerate(chosen):
        yield bin_index, min(each, taken - place * each)


def _packed_windows(ends: Indices, seq_len: int) -> Iterator[tuple[Indices, Indices, Indices]]:
    """Yield pieces by sequence (starts, lengths) and the pieces of each sequence."""
    for first in range(0, ends.size, WINDOW_DOCUMENTS):
        some = ends[first : first + WINDOW_DOCUMENTS]
        begin = np.concatenate([[ends[first - 1] if first else 0], some[:-1]])
        starts, lengths = _pieces(begin, some, seq_len)
        bins = best_fit(lengths, seq_len)
        order = np.argsort(bins, kind="stable")
        yield starts[order], lengths[order], np.bincount(bins)


def _pieces(begin: Indices, end: Indices, seq_len: int) -> tuple[Indices, Indices]:
    positions = end - begin - 1
    counts = -(-positions // seq_len)
    document = np.repeat(np.arange(begin.size), counts)
    number = np.arange(document.size) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = number * seq_len
    return begin[document] + offset, np.minimum(positions[document] - offset, seq_len)


def _batches(starts: Indices, lengths: Indices, sizes: Indices, schema: pa.Schema) -> Iterator[Any]:
    borders = np.concatenate([[0], np.cumsum(sizes)])
    for first in range(0, sizes.size, BATCH_SEQUENCES):
        some = borders[first : first + BATCH_SEQUENCES + 1]
        here = slice(some[0], some[-1])
        offsets = pa.array((some - some[0]).astype(np.int32))
        values = (pa.array(starts[here]), pa.array(lengths[here].astype(np.int32)))
        columns = [pa.ListArray.from_arrays(offsets, column) for column in values]
        yield pa.record_batch(columns, schema=schema)


def _report(
    source: str, split: SplitName, ends: Indices, seq_len: int, sequences: int
) -> PackingReport:
    begin = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    positions = ends - begin - 1
    chunks = np.maximum(ends - 2, begin) // seq_len - begin // seq_len
    return PackingReport(
        source,
        split,
        sequences,
        ends.size,
        padding_share=float(1 - positions.sum() / (sequences * seq_len)),
        cut_share=float(np.mean(positions > seq_len)),
        cut_share_concatenated=float(np.mean(chunks > 0)),
    )


class PackedStream:
    """The sequences of one source and split, from its packing index."""

    def __init__(self, store: Store, stream: TokenStream, split: SplitName, seq_len: int) -> None:
        """Open the index.

        Raises:
            DataError: It was not made, or belongs to another state of the store.
        """
        self.name = stream.name
        self._stream = stream
        self._eos_id = store.manifest.tokenizer.eos_id
        path = index_path(store.path, stream.name, split, seq_len)
        remedy = f"run `moe data pack {store.path} --seq-len {seq_len}`"
        if not path.is_file():
            raise DataError(f"{path}: missing, and packing is best_fit: {remedy}")
        reader = open_arrow(path)
        if (reader.schema.metadata or {}).get(TABLE_KEY) != stream.table_sha256.encode():
            raise DataError(f"{path}: made from another store: {remedy}")
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._starts: list[int] = [0, *accumulate(batch.num_rows for batch in self._batches)]

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self._starts[-1]

    def fill(self, sample: int, rows: Rows, row: int) -> None:
        """Fill a row with whole documents; padding is end tokens outside the loss."""
        index = bisect_right(self._starts, sample) - 1
        place = sample - self._starts[index]
        starts, lengths = (column[place].values for column in self._batches[index].columns)
        filled = 0
        for start, length in zip(starts.to_numpy(), lengths.to_numpy(), strict=True):
            window = self._stream.read(int(start), int(length) + 1)
            rows.tokens[row, filled : filled + length] = window[:-1]
            rows.labels[row, filled : filled + length] = window[1:]
            rows.starts[row, filled] = True
            filled += int(length)
        rows.tokens[row, filled:] = rows.labels[row, filled:] = self._eos_id
        rows.loss_mask[row, filled:] = 0.0
        rows.starts[row, filled : filled + 1] = True
