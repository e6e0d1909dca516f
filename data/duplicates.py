"""Which documents repeat an earlier one: exactly, or nearly.

The first document in order stays. A document is dropped as a near duplicate where it is near to
one that stays; chains of likeness (A like B, B like C, A unlike C) do not drop C. Memory is the
index: 32 bytes a document for hashes, and 24 more at a time for one band.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.near import NUM_HASHES, Bands

MAX_HEADS = 16
PAIRS_AT_ONCE = 1 << 14

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """Both arrays are indexed by document, over all parts, dropped documents included."""

    keeper: Indices
    """Index of the earlier document that stays instead, or -1."""
    exact: NDArray[np.bool_]
    """Whether the texts are equal."""


class Parts:
    """All part files, as one sequence of documents."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.batches: list[Any] = []
        for path in paths:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self.batches += [reader.get_batch(i) for i in range(reader.num_record_batches)]
        sizes = [batch.num_rows for batch in self.batches]
        self.starts: Indices = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def __len__(self) -> int:
        """Return the number of documents, dropped ones included."""
        return int(self.starts[-1])

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of numbers over all documents."""
        arrays = [batch.column(name).to_numpy() for batch in self.batches]
        joined: NDArray[Any] = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.uint64)
        return joined

    def fixed_column(self, name: str, dtype: Any, width: int) -> NDArray[Any]:
        """Return a fixed-size binary column as numbers, [documents, width]."""
        arrays = [fixed_rows(batch.column(name), dtype, width) for batch in self.batches]
        joined: NDArray[Any] = np.concatenate(arrays)
        return joined

    def passed(self) -> NDArray[np.bool_]:
        """Return which documents passed cleaning."""
        masks = [pc.is_null(b.column("reason")).to_numpy(False) for b in self.batches]
        joined: NDArray[np.bool_] = np.concatenate(masks) if masks else np.zeros(0, dtype=bool)
        return joined

    def signatures(self, documents: Indices) -> NDArray[np.uint32]:
        """Return the signatures of some documents, uint32 [documents, NUM_HASHES]."""
        found = np.empty((documents.size, NUM_HASHES), dtype=np.uint32)
        batches = np.searchsorted(self.starts, documents, side="right") - 1
        for batch in np.unique(batches):
            here = np.flatnonzero(batches == batch)
            rows = fixed_rows(self.batches[batch].column("signature"), np.uint32, NUM_HASHES)
            found[here] = rows[documents[here] - self.starts[batch]]
        return found

    def place(self, document: int) -> str:
        """Return the file and position of a document."""
        batch = int(np.searchsorted(self.starts, document, side="right")) - 1
        row = document - int(self.starts[batch])
        columns = self.batches[batch]
        return f"{columns.column('file')[row]}:{columns.column('position')[row]}"


def fixed_rows(column: Any, dtype: Any, width: int) -> NDArray[Any]:
    """View a fixed-size binary array as numbers, [rows, width], without copying."""
    numbers: NDArray[Any] = np.frombuffer(column.buffers()[1], dtype=dtype).reshape(-1, width)
    return numbers[column.offset : column.offset + len(column)]


def find_duplicates(parts: Parts, *, exact: bool, bands: Bands | None) -> Duplicates:
    """Decide for every document that passed cleaning whether an earlier one stands for it."""
    keeper = np.full(len(parts), -1, dtype=np.int64)
    is_exact = np.zeros(len(parts), dtype=bool)
    if exact and len(parts):
        _mark_exact(parts, keeper)
        is_exact = keeper >= 0
    if bands is not None and len(parts):
        _mark_near(_near_pairs(parts, bands, keeper), keeper)
    return Duplicates(keeper, is_exact)


def _mark_exact(parts: Parts, keeper: Indices) -> None:
    documents = np.flatnonzero(parts.passed())
    hashes = parts.fixed_column("hash", np.uint64, 2)[documents]
    order = np.lexsort((documents, hashes[:, 1], hashes[:, 0]))
    first = _run_starts((hashes[order][1:] == hashes[order][:-1]).all(axis=1))
    heads = documents[order[first]]
    members = documents[order]
    repeated = heads != members
    keeper[members[repeated]] = heads[repeated]


def _run_starts(same_as_before: NDArray[np.bool_]) -> Indices:
    """Return for each element of a sorted array where its run of equal values begins."""
    begins = np.concatenate([[True], ~same_as_before])
    starts: Indices = np.maximum.accumulate(np.where(begins, np.arange(begins.size), 0))
    return starts


def _near_pairs(parts: Parts, bands: Bands, keeper: Indices) -> Indices:
    """Return confirmed pairs (earlier, later) of near duplicates, int64 [pairs, 2].

    Pairs come in the order of their later document.
    """
    documents = np.flatnonzero(parts.passed() & (keeper < 0))
    confirmed: Indices = np.zeros(0, dtype=np.int64)
    for band in range(bands.count):
        keys = parts.column(f"band_{band}")[documents]
        order = np.argsort(keys, kind="stable")
        members, keys = documents[order], keys[order]
        for _ in range(MAX_HEADS):
            pairs = _with_heads(members, keys)
            if not pairs.size:
                break
            codes = pairs[:, 1] * len(parts) + pairs[:, 0]
            near = np.isin(codes, confirmed)
            unknown = np.flatnonzero(~near)
            near[unknown] = _confirm(parts, pairs[unknown], bands.least_equal)
            confirmed = np.union1d(confirmed, codes[near])
            left = np.isin(members, pairs[~near, 1])
            members, keys = members[left], keys[left]
    return np.stack([confirmed % len(parts), confirmed // len(parts)], axis=1)


def _with_heads(members: Indices, keys: NDArray[np.uint64]) -> Indices:
    """Pair each document with the first that has the same key."""
    if members.size < 2:
        return np.zeros((0, 2), dtype=np.int64)
    heads = members[_run_starts(keys[1:] == keys[:-1])]
    pairs: Indices = np.stack([heads, members], axis=1)[heads != members]
    return pairs


def _confirm(parts: Parts, pairs: Indices, least_equal: int) -> NDArray[np.bool_]:
    near = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        some = pairs[start : start + PAIRS_AT_ONCE]
        equal = parts.signatures(some[:, 0]) == parts.signatures(some[:, 1])
        near[start : start + PAIRS_AT_ONCE] = equal.sum(axis=1) >= least_equal
    return near


def _mark_near(pairs: Indices, keeper: Indices) -> None:
    for earlier, later in pairs.tolist():
        if keeper[later] < 0 and keeper[earlier] < 0:
            keeper[later] = earlier
