"""The sample order: a keyed bijection of range(n), computed index by index in O(1) memory.

A generalised Feistel network with cycle walking on a domain of a * b >= n points (J. Black and
P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 5). Every round adds a
function of one half to the other half modulo its size, which is a bijection whatever the function
and whatever n: no power-of-two border cases. With a = ceil(sqrt(n)) fewer than a points are
outside range(n), so almost no index walks.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

ROUNDS = 8
MAX_SAMPLES = 1 << 62

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def shuffled(positions: NDArray[np.int64], num_samples: int, seed: int) -> NDArray[np.int64]:
    """Return the samples at `positions` of the endless stream of reshuffled epochs.

    Position p lies in epoch p // num_samples; every epoch visits each sample exactly once, in an
    order of its own. A pure function: neither run length nor number of readers enters.
    """
    epochs, offsets = np.divmod(positions, num_samples)
    samples = np.empty_like(offsets)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        samples[here] = permuted(offsets[here], num_samples, seed, int(epoch))
    return samples


def permuted(
    indices: NDArray[np.int64], num_samples: int, seed: int, epoch: int = 0
) -> NDArray[np.int64]:
    """Map indices in range(num_samples) through the bijection of (seed, epoch)."""
    if not 0 < num_samples < MAX_SAMPLES:
        raise ValueError(f"num_samples={num_samples} must be in 1..{MAX_SAMPLES - 1}")
    rows = math.isqrt(num_samples - 1) + 1
    columns = -(-num_samples // rows)
    keys = _round_keys(seed, epoch)
    points = _feistel(indices.astype(np.uint64), rows, columns, keys)
    outside = np.flatnonzero(points >= num_samples)
    while outside.size:
        points[outside] = _feistel(points[outside], rows, columns, keys)
        outside = outside[points[outside] >= num_samples]
    return points.astype(np.int64)


def _feistel(
    points: NDArray[np.uint64], rows: int, columns: int, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    row, column = np.divmod(points, np.uint64(columns))
    for round_index, key in enumerate(keys):
        if round_index % 2 == 0:
            row = _add_modulo(row, _bounded_hash(column, key, rows), rows)
        else:
            column = _add_modulo(column, _bounded_hash(row, key, columns), columns)
    return row * np.uint64(columns) + column


def _add_modulo(a: NDArray[np.uint64], b: NDArray[np.uint64], modulus: int) -> NDArray[np.uint64]:
    total = a + b
    return np.where(total >= modulus, total - np.uint64(modulus), total)


def _bounded_hash(values: NDArray[np.uint64], key: np.uint64, bound: int) -> NDArray[np.uint64]:
    """Hash to range(bound), bound < 2**32: SplitMix64's finaliser, then multiply and shift."""
    mixed = values ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)


def _round_keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(f"order {seed} {epoch}".encode(), digest_size=8 * ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)
