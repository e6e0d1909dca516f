"""Words of a text as 64-bit hashes, and hashes of their n-grams, computed by numpy."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_UNSPACED = "\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\uac00-\\ud7a3"
WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")
"""A run of letters and digits; each kana, Han or Hangul character on its own."""
MAX_CACHED_WORDS = 1 << 17
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


class _HashCache(dict[str, int]):
    """A bounded cache of the hashes of words."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_CACHED_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "little")
        return value


_hash_of = _HashCache()


def word_hashes(text: str) -> Hashes:
    """Return the hash of each lower-cased word, uint64 [words]."""
    return hash_words(WORD.findall(text.lower()))


def hash_words(words: Sequence[str]) -> Hashes:
    """Return the hash of each word as spelled, uint64 [words]."""
    return np.fromiter(map(_hash_of.__getitem__, words), dtype=np.uint64, count=len(words))


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """Return the hash of each run of n words, uint64 [words - n + 1] (none if fewer)."""
    count = max(words.size - n + 1, 0)
    mixed = np.zeros(count, dtype=np.uint64)
    for offset in range(n if count else 0):
        mixed = (mixed ^ words[offset : offset + count]) * _MULTIPLIER
        mixed ^= mixed >> _SHIFT
    return mixed
