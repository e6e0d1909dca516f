"""How many held-out documents have a nearly equal one in train, where near duplicates are kept.

Splits go by the hash of a text, so that of two nearly equal documents one may be trained on and
the other held out; then the held-out loss is too low. Counted on a sample of held-out documents, by
the Jaccard similarity of runs of tokens, which all are at hand: words would have to be hashed anew.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.build.split_assignment import IN_HELD_OUT, IN_TRAIN, SplitAssignment
from data.build.unit_output_reader import Indices, UnitOutputs
from data.cleaning.word_hashes import Hashes

SIMILARITY = 0.8
MAX_DOCUMENTS = 2048
"""Held-out documents that are compared with all of train: those of the lowest hashes."""
MAX_RUNS = 1 << 20
BYTE_RUN, TOKEN_RUN = 32, 8
"""Tokens of a run, about five words."""
BYTE_VOCABULARY = 257
_FILTER_BITS = 24
_SPARSE_STEP, _SPARSE_FROM = 8, 64
"""Of a document with so many runs or more, every 8th is looked at first."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class HeldOutOverlap:
    """Held-out documents with a nearly equal one in train."""

    checked: int
    near_train: int


def count_overlap(
    outputs: UnitOutputs, assignment: SplitAssignment, vocab_size: int
) -> HeldOutOverlap:
    """Compare a sample of the held-out documents with every document of train."""
    n = BYTE_RUN if vocab_size <= BYTE_VOCABULARY else TOKEN_RUN
    held_out = np.flatnonzero(assignment == IN_HELD_OUT)
    if not held_out.size or not (assignment == IN_TRAIN).any():
        return HeldOutOverlap(0, 0)
    lowest = np.argsort(outputs.hashes()[held_out, 0], kind="stable")[:MAX_DOCUMENTS]
    index = _RunIndex(_sample_runs(outputs, np.sort(held_out[lowest]), n))
    for start, batch in outputs.batches():
        rows = np.flatnonzero(assignment[start : start + batch.num_rows] == IN_TRAIN)
        index.mark(_Documents(batch, n), rows)
    return HeldOutOverlap(len(index.sizes), int(index.is_near.sum()))


def _sample_runs(outputs: UnitOutputs, documents: Indices, n: int) -> list[Hashes]:
    """Return the distinct runs of each document that has some, up to `MAX_RUNS` in all."""
    found: list[Hashes] = []
    total = 0
    for start, batch in outputs.batches():
        rows = documents[(documents >= start) & (documents < start + batch.num_rows)] - start
        if not rows.size:
            continue
        tokens = _Documents(batch, n)
        for row in rows.tolist():
            own = tokens.distinct_runs(row)
            total += own.size
            if own.size and (not found or total <= MAX_RUNS):
                found.append(own)
    return found


class _Documents:
    """The runs of n tokens in each document of a record batch, as hashes."""

    def __init__(self, batch: Any, n: int) -> None:
        column = batch.column("tokens")
        self._tokens = column.values.to_numpy()
        self._starts = column.offsets.to_numpy().astype(np.int64)
        self._n = n
        self.counts: Indices = np.maximum(np.diff(self._starts) - n + 1, 0)
        """Runs of each document."""

    def distinct_runs(self, row: int) -> Hashes:
        """Return the distinct runs of one document."""
        return np.unique(self._hashes(self._starts[row] + np.arange(self.counts[row])))

    def sparse_runs(self) -> tuple[Hashes, Indices]:
        """Return some runs of every document, and where each document's begin among them."""
        steps = np.where(self.counts < _SPARSE_FROM, 1, _SPARSE_STEP)
        counts = -(-self.counts // steps)
        begins = np.concatenate([[0], np.cumsum(counts)])
        numbers = np.arange(begins[-1]) - np.repeat(begins[:-1], counts)
        return self._hashes(
            np.repeat(self._starts[:-1], counts) + numbers * np.repeat(steps, counts)
        ), begins

    def _hashes(self, firsts: Indices) -> Hashes:
        """Hash the run of n tokens from each of these positions."""
        hashes = np.zeros(firsts.size, dtype=np.uint64)
        for offset in range(self._n):
            hashes = (hashes ^ self._tokens[firsts + offset]) * _MULTIPLIER
            hashes ^= hashes >> np.uint64(29)
        return hashes


class _RunIndex:
    """The runs of the sampled documents; marks those that a train document nearly equals."""

    def __init__(self, documents: list[Hashes]) -> None:
        self.sizes: Indices = np.array([runs.size for runs in documents], dtype=np.int64)
        self.is_near = np.zeros(len(documents), dtype=bool)
        runs = np.concatenate([np.empty(0, np.uint64), *documents])
        order = np.argsort(runs, kind="stable")
        self._owners = np.repeat(np.arange(self.sizes.size), self.sizes)[order]
        self._known, self._first = np.unique(runs[order], return_index=True)
        self._first = np.append(self._first, runs.size)
        self._filter = np.zeros(1 << _FILTER_BITS, dtype=bool)
        self._filter[self._slot(self._known)] = True

    def mark(self, documents: _Documents, rows: Indices) -> None:
        """Mark the sampled documents that one of these rows nearly equals."""
        runs, begins = documents.sparse_runs()
        known = np.concatenate([[0], np.cumsum(self._filter[self._slot(runs)])])
        shared = known[begins[1:]] - known[begins[:-1]]
        # Runs that repeat count once in the similarity, but here every time: hence the half.
        likely = (shared >= SIMILARITY / 2 * np.diff(begins)) & (documents.counts > 0)
        for row in rows[likely[rows]].tolist():
            self._mark_row(documents.distinct_runs(row))

    def _mark_row(self, own: Hashes) -> None:
        if not self._known.size:
            return
        position = np.minimum(np.searchsorted(self._known, own), self._known.size - 1)
        position = position[self._known[position] == own]
        first, counts = self._first[position], self._first[position + 1] - self._first[position]
        entries = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        shared = np.bincount(self._owners[entries], minlength=self.sizes.size)
        self.is_near |= shared >= SIMILARITY * (self.sizes + own.size - shared)

    @staticmethod
    def _slot(hashes: Hashes) -> NDArray[np.intp]:
        return (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.intp)
