"""Words of a text as 64-bit hashes, and hashes of their n-grams, computed by numpy.

Words are compared after one normalization, whatever their file was written in: Unicode's
compatibility form (NFKC: composed or decomposed, full or half width, ligatures), without case, and
without characters that show nothing (soft hyphens, joiners, zero-width spaces, variation
selectors). Accents count. A word is a run of letters and digits with their marks, so that the
vowel signs of Hindi do not divide it; each kana, Han or Hangul character is a word.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data.plain_text import INVISIBLE

Hashes = NDArray[np.uint64]

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7a3"
_MARKS = "".join(
    chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)).startswith("M")
)
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
# The look-ahead spares text of Latin letters the slow search for marks.
_WORD = re.compile(f"\\w+(?:(?=[^\\x00-\\u02ff])[{_MARKS}]+\\w*)*")
_HAS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_UNSPACED_WORD = re.compile(f"[{_UNSPACED}][{_MARKS}]*|[^{_UNSPACED}]+")
_INVISIBLE = re.compile(f"[{INVISIBLE}]+")
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


def split_words(text: str) -> list[str]:
    """Return the words of a text after normalization; see above."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    words = _WORD.findall(unicodedata.normalize("NFKC", folded))
    if not _HAS_UNSPACED.search(folded):
        return words
    return [part for word in words for part in _UNSPACED_WORD.findall(word)]


def word_hashes(text: str) -> Hashes:
    """Return the hash of each normalized word, uint64 [words]."""
    return hash_words(split_words(text))


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
