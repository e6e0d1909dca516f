"""Words of a text as 64-bit hashes, and hashes of their n-grams, computed by numpy.

Words are compared after one normalization, whatever their file was written in: Unicode's
compatibility form (NFKC: composed or decomposed, full or half width, ligatures), without case, and
without characters that show nothing (soft hyphens, joiners, zero-width spaces, variation
selectors). Accents count. A word is a run of letters and digits with their marks, so that the
vowel signs of Hindi do not divide it.

Where lines break without spaces (Han, kana, Hangul; Thai, Lao, Khmer, Burmese, Javanese and others:
classes of Unicode's line breaking, UAX #14), each letter with its marks is a word of its own, since
no rule without a dictionary tells where words end. It counts as part of one: a name of eight
letters is no sentence of eight words.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import regex
from numpy.typing import NDArray

from data.visible_text import INVISIBLE

Hashes = NDArray[np.uint64]

LETTERS_PER_WORD = {  # Han, kana, Hangul, Yi, Tangut; scripts of South East Asia, Brahmi
    r"[[\p{LB=ID}\p{LB=CJ}\p{LB=H2}\p{LB=H3}]&&\p{L}--\p{Latin}]": 2,
    r"[[\p{LB=SA}\p{LB=AK}\p{LB=AS}]&&\p{L}]": 4,
}
"""Letters of scripts without spaces that are as long as a word, about."""
_PARTS_OF_WORDS = [(regex.compile(p, regex.V1), n) for p, n in LETTERS_PER_WORD.items()]
UNSPACED = f"[{''.join(LETTERS_PER_WORD)}]"
"""Set of the letters of scripts without spaces, in the syntax of `regex`'s version 1."""
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
_WORD = regex.compile(r"\w+")
_UNSPACED_LETTER = regex.compile(UNSPACED, regex.V1)
_MAYBE_UNSPACED = re.compile("[\u0e00-\u1fff\u2e80-\U0010ffff]")
"""Spares text of other letters the slower search by properties."""
_UNSPACED_WORD = regex.compile(f"{UNSPACED}\\p{{M}}*|[^{UNSPACED}]+", regex.V1)
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
    folded = unicodedata.normalize("NFKC", INVISIBLE.sub("", text)).casefold()
    return divide_words(_WORD.findall(unicodedata.normalize("NFKC", folded)))


def has_unspaced_letters(text: str) -> bool:
    """Return whether a text has letters of scripts without spaces."""
    if text.isascii() or not _MAYBE_UNSPACED.search(text):
        return False
    return bool(_UNSPACED_LETTER.search(text))


def divide_words(words: list[str]) -> list[str]:
    """Return the words with each letter of a script without spaces as one; see above."""
    if not has_unspaced_letters(" ".join(words)):
        return words
    return [part for word in words for part in _UNSPACED_WORD.findall(word)]


def count_words(words: Sequence[str]) -> float:
    """Return how many words divided words are, where letters without spaces are parts of one."""
    heads = "".join(word[0] for word in words)
    if not _MAYBE_UNSPACED.search(heads):
        return len(words)
    parts = ((len(letters.findall(heads)), n) for letters, n in _PARTS_OF_WORDS)
    return len(words) - sum(count * (n - 1) / n for count, n in parts)


def word_hashes(text: str) -> Hashes:
    """Return the hash of each normalized word, uint64 [words]."""
    return hash_words(split_words(text))


def hash_words(words: Sequence[str]) -> Hashes:
    """Return the hash of each word as spelled, uint64 [words]."""
    return np.fromiter(map(_hash_of.__getitem__, words), dtype=np.uint64, count=len(words))


def ngram_hashes(words: Hashes, n: int) -> Hashes:
    """Return the hash of each run of n words, uint64 [words - n + 1] (none if fewer)."""
    return next(ngram_hashes_by_length(words, (n,)))


def ngram_hashes_by_length(words: Hashes, lengths: Iterable[int]) -> Iterator[Hashes]:
    """Yield what `ngram_hashes` returns for each of ascending lengths, each from the one before."""
    mixed = np.zeros(words.size, dtype=np.uint64)
    done = 0
    for n in lengths:
        count = max(words.size - n + 1, 0)
        mixed = mixed[:count]
        for offset in range(done, n if count else done):
            mixed = (mixed ^ words[offset : offset + count]) * _MULTIPLIER
            mixed ^= mixed >> _SHIFT
        done = n
        yield mixed
