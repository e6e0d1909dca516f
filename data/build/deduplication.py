"""Which documents are exact or near duplicates of an earlier one.

The first document in order is retained. A document is dropped as a near duplicate where it is
similar to a retained one; similarity is not transitive: where A is like B and B like C, but A
unlike C, then C is retained. Memory is the index: about 70 bytes per document, whatever its length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.build.unit_output_reader import Indices, UnitOutputs
from data.cleaning.minhash import Bands

MAX_ROUNDS = 16
PAIRS_PER_BATCH = 1 << 14


@dataclass(frozen=True)
class DuplicateMap:
    """Both arrays are indexed by document, over all unit outputs, dropped documents included."""

    original: Indices
    """Index of the earlier document that each one duplicates, or -1."""
    exact: NDArray[np.bool_]
    """Whether the texts are equal."""


def find_duplicates(outputs: UnitOutputs, *, exact: bool, bands: Bands | None) -> DuplicateMap:
    """Find the original of every document that passed cleaning and duplicates an earlier one."""
    original = np.full(len(outputs), -1, dtype=np.int64)
    is_exact = np.zeros(len(outputs), dtype=bool)
    if exact and len(outputs):
        _mark_exact(outputs, original)
        is_exact = original >= 0
    if bands is not None and len(outputs):
        _mark_near(_near_pairs(outputs, bands, original), original)
    return DuplicateMap(original, is_exact)


def _mark_exact(outputs: UnitOutputs, original: Indices) -> None:
    documents = np.flatnonzero(outputs.passed())
    if documents.size < 2:
        return
    hashes = outputs.hashes()[documents]
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal hashes keep document order
    hashes = hashes[order]
    first = _run_starts((hashes[1:] == hashes[:-1]).all(axis=1))
    heads = documents[order[first]]
    members = documents[order]
    repeated = heads != members
    original[members[repeated]] = heads[repeated]


def _run_starts(same_as_before: NDArray[np.bool_]) -> Indices:
    """Return for each element of a sorted array where its run of equal values begins."""
    begins = np.concatenate([[True], ~same_as_before])
    starts: Indices = np.maximum.accumulate(np.where(begins, np.arange(begins.size), 0))
    return starts


def _near_pairs(outputs: UnitOutputs, bands: Bands, original: Indices) -> Indices:
    """Return confirmed pairs (earlier, later) of near duplicates, int64 [pairs, 2].

    Pairs come in the order of their later document.
    """
    documents = np.flatnonzero(outputs.passed() & (original < 0))
    confirmed: Indices = np.zeros(0, dtype=np.int64)
    for band in range(bands.count):
        keys = outputs.uint64_column(f"band_{band}")[documents]
        order = np.argsort(keys, kind="stable")
        members, keys = documents[order], keys[order]
        for _ in range(MAX_ROUNDS):
            pairs = _pair_with_heads(members, keys)
            if not pairs.size:
                break
            codes = pairs[:, 1] * len(outputs) + pairs[:, 0]
            similar = np.isin(codes, confirmed)
            unknown = np.flatnonzero(~similar)
            similar[unknown] = _are_similar(outputs, pairs[unknown], bands.min_equal)
            confirmed = np.union1d(confirmed, codes[similar])
            unmatched = np.isin(members, pairs[~similar, 1])
            members, keys = members[unmatched], keys[unmatched]
    return np.stack([confirmed % len(outputs), confirmed // len(outputs)], axis=1)


def _pair_with_heads(members: Indices, keys: NDArray[np.uint64]) -> Indices:
    """Pair each document with the first that has the same key."""
    if members.size < 2:
        return np.zeros((0, 2), dtype=np.int64)
    heads = members[_run_starts(keys[1:] == keys[:-1])]
    pairs: Indices = np.stack([heads, members], axis=1)[heads != members]
    return pairs


def _are_similar(outputs: UnitOutputs, pairs: Indices, min_equal: int) -> NDArray[np.bool_]:
    """Return for each pair whether enough hashes of its signatures are equal."""
    similar = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), PAIRS_PER_BATCH):
        some = pairs[start : start + PAIRS_PER_BATCH]
        equal = outputs.signatures(some[:, 0]) == outputs.signatures(some[:, 1])
        similar[start : start + PAIRS_PER_BATCH] = equal.sum(axis=1) >= min_equal
    return similar


def _mark_near(pairs: Indices, original: Indices) -> None:
    """Mark the later document of each pair whose earlier one is retained."""
    for earlier, later in pairs.tolist():
        if original[later] < 0 and original[earlier] < 0:
            original[later] = earlier
