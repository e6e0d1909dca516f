"""The split of every document, or that it is dropped."""

import numpy as np
from numpy.typing import NDArray

from data.build.deduplication import DuplicateMap
from data.build.unit_output_reader import UnitOutputs

DROPPED, IN_TRAIN, IN_HELD_OUT = 0, 1, 2

SplitAssignment = NDArray[np.uint8]
"""`DROPPED`, `IN_TRAIN` or `IN_HELD_OUT` of each document, uint8 [documents]."""


def assign_splits(
    outputs: UnitOutputs, duplicates: DuplicateMap, held_out_fraction: float
) -> SplitAssignment:
    """Drop what failed cleaning or is a duplicate; split the rest by the hash of its text."""
    limit = min(int(held_out_fraction * 2**64), 2**64 - 1)
    is_held_out = outputs.hashes()[:, 0] < np.uint64(limit)
    assignment = np.where(is_held_out, IN_HELD_OUT, IN_TRAIN).astype(np.uint8)
    assignment[~outputs.passed() | (duplicates.original >= 0)] = DROPPED
    return assignment
