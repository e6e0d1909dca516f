"""Which documents repeat an earlier one: exactly, or nearly.

The first document in order stays. A document is dropped as a near duplicate where it is near to
one that stays; chains of likeness (A like B, B like C, A unlike C) do not drop C. Memory is the
index: about 70 bytes a document, whatever its length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.build.unit_output_reader import Indices, UnitOutputs
from data.cleaning.minhash import Bands

MAX_HEADS = 16
PAIRS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class DuplicateMap:
    """Both arrays are indexed by document, over all parts, dropped documents included."""

    keeper: Indices
    """Index of the earlier document that stays instead, or -1."""
    exact: NDArray[np.bool_]
    """Whether the texts are equal."""


def find_duplicates(parts: UnitOutputs, *, exact: bool, bands: Bands | None) -> DuplicateMap:
    """Decide for every document that passed cleaning whether an earlier one stands for it."""
    keeper = np.full(len(parts), -1, dtype=np.int64)
    is_exact = np.zeros(len(parts), dtype=bool)
    if exact and len(parts):
        _mark_exact(parts, keeper)
        is_exact = keeper >= 0
    if bands is not None and len(parts):
        _mark_near(_near_pairs(parts, bands, keeper), keeper)
    return DuplicateMap(keeper, is_exact)


def _mark_exact(parts: UnitOutputs, keeper: Indices) -> None:
    documents = np.flatnonzero(parts.passed())
    if documents.size < 2:
        return
    hashes = parts.hashes()[documents]
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal ones stay in order
    hashes = hashes[order]
    first = _run_starts((hashes[1:] == hashes[:-1]).all(axis=1))
    heads = documents[order[first]]
    members = documents[order]
    repeated = heads != members
    keeper[members[repeated]] = heads[repeated]


def _run_starts(same_as_before: NDArray[np.bool_]) -> Indices:
    """Return for each element of a sorted array where its run of equal values begins."""
    begins = np.concatenate([[True], ~same_as_before])
    starts: Indices = np.maximum.accumulate(np.where(begins, np.arange(begins.size), 0))
    return starts


def _near_pairs(parts: UnitOutputs, bands: Bands, keeper: Indices) -> Indices:
    """Return confirmed pairs (earlier, later) of near duplicates, int64 [pairs, 2].

    Pairs come in the order of their later document.
    """
    documents = np.flatnonzero(parts.passed() & (keeper < 0))
    confirmed: Indices = np.zeros(0, dtype=np.int64)
    for band in range(bands.count):
        keys = parts.numbers(f"band_{band}")[documents]
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


def _confirm(parts: UnitOutputs, pairs: Indices, least_equal: int) -> NDArray[np.bool_]:
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
