"""MinHash signatures, and band keys that propose near duplicates (locality-sensitive hashing).

Broder's min-wise hashing (SEQUENCES 1997) of word 5-grams, computed by rensa; bands as in
Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4: documents of Jaccard
similarity s share at least one of b bands of r rows with probability 1 - (1 - s^r)^b.
"""

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.cleaning.word_hashes import Hashes, ngram_hashes
from data.errors import DataError

NUM_HASHES = 256
SEED = 1
SHINGLE_WORDS = 5
CANDIDATE_PROBABILITY = 0.99

Signatures = NDArray[np.uint32]


@dataclass(frozen=True)
class Bands:
    """How signatures are divided into bands, and when two documents count as near duplicates."""

    rows: int
    """Hashes per band; there are NUM_HASHES / rows bands."""
    min_equal: int
    """Number of equal hashes from which a candidate pair is confirmed."""

    @property
    def count(self) -> int:
        """Number of bands."""
        return NUM_HASHES // self.rows


def bands_for(similarity: float) -> Bands:
    """Return the longest bands that still propose 99% of the pairs at `similarity`.

    A pair is confirmed where its fraction of equal hashes, an estimate of the similarity with
    standard deviation sqrt(s (1 - s) / NUM_HASHES), is at most two of these below `similarity`.
    """
    rows = max(
        r
        for r in (1, 2, 4, 8, 16, 32)
        if r == 1 or 1 - (1 - similarity**r) ** (NUM_HASHES // r) >= CANDIDATE_PROBABILITY
    )
    deviation = math.sqrt(similarity * (1 - similarity) / NUM_HASHES)
    return Bands(rows, math.ceil((similarity - 2 * deviation) * NUM_HASHES))


def minhash_library() -> Any:
    """Return rensa's MinHash class.

    Raises:
        DataError: rensa is not installed.
    """
    try:
        return importlib.import_module("rensa").RMinHash
    except ImportError:
        raise DataError(
            "clean.near_duplicates needs rensa: pip install 'moescale[clean]', or remove it"
        ) from None


def minhash_signatures(texts: Sequence[Hashes]) -> Signatures:
    """Return the signature of each text, given as hashes of words; uint32 [texts, NUM_HASHES].

    A text of fewer than five words is one shingle.
    """
    shingles = [ngram_hashes(words, max(1, min(SHINGLE_WORDS, words.size))) for words in texts]
    offsets = np.cumsum([0, *(s.size for s in shingles)], dtype=np.uint64)
    matrix = minhash_library().digest_matrix_from_flat_token_hashes(
        np.concatenate(shingles), offsets, NUM_HASHES, SEED
    )
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), NUM_HASHES)


def band_keys(signatures: Signatures, bands: Bands) -> NDArray[np.uint64]:
    """Return one key for each band and text, uint64 [bands, texts]; equal bands have equal keys."""
    by_band = signatures.reshape(-1, bands.count, bands.rows).astype(np.uint64)
    keys = np.zeros(by_band.shape[:2], dtype=np.uint64)
    for row in range(bands.rows):
        keys = (keys ^ by_band[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(32)
    return np.ascontiguousarray(keys.T)
