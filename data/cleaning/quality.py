"""Quality rules of Gopher and C4, each under the name by which dropped documents are counted.

Gopher: Rae et al., arXiv:2112.11446, appendix A1.1 (quality) and table A1 (repetition).
C4: Raffel et al., arXiv:1910.10683, section 2.2, without its list of offensive words and its
removal of repeated three-sentence spans (deduplication is a step of its own here).

Words stand between spaces. Letters of scripts without spaces are divided and counted as
`word_hashes.py` says; the length of their words is not known and not judged.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.cleaning.word_hashes import (
    Hashes,
    count_words,
    divide_words,
    has_unspaced_letters,
    hash_words,
    ngram_hashes_by_length,
)

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
BULLETS = ("•", "-", "*", "‣", "◦", "·")
ELLIPSES = ("...", "…")
TOP_NGRAM_LIMITS = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE_NGRAM_LIMITS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
TERMINAL_MARKS = (".", "!", "?", '"', "”")
POLICY_LINES = (
    *("terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)
_SENTENCE_END = re.compile(r"[.!?][\"”')\]]*(?=\s|$)")
_CITATION = re.compile(r"\[(?:\d{1,4}|edit|citation needed)\]")


def gopher_quality(text: str) -> str | None:
    """Return the first broken rule of Gopher's quality filter, or None."""
    return next(_quality_faults(text), None)


def gopher_repetition(text: str) -> str | None:
    """Return the first broken rule of Gopher's repetition filter, or None.

    N-gram fractions are of the characters in words; overlapping n-grams count a character once.
    """
    return next(_repetition_faults(text), None)


def _quality_faults(text: str) -> Iterator[str]:
    words = text.split()
    divided = divide_words(words)
    count = count_words(divided)
    if not 50 <= count <= 100_000:
        yield "word_count"
    spaced = words if divided is words else [w for w in words if not has_unspaced_letters(w)]
    if len(spaced) >= count / 2 and not 3 <= sum(map(len, spaced)) / len(spaced) <= 10:
        yield "mean_word_length"
    if max(text.count("#"), sum(map(text.count, ELLIPSES))) > 0.1 * count:
        yield "symbols"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if sum(line.startswith(BULLETS) for line in lines) > 0.9 * len(lines):
        yield "bullet_lines"
    if sum(line.endswith(ELLIPSES) for line in lines) > 0.3 * len(lines):
        yield "ellipsis_lines"
    if sum(any(map(str.isalpha, word)) for word in words) < 0.8 * len(words):
        yield "alphabetic_words"
    if len(STOP_WORDS.intersection(text.lower().split())) < 2:
        yield "stop_words"


def _repetition_faults(text: str) -> Iterator[str]:
    for name, separator in (("line", "\n"), ("paragraph", "\n\n")):
        sections = [section.strip() for section in text.split(separator) if section.strip()]
        repeated = _repeats(sections)
        if len(repeated) > 0.30 * len(sections):
            yield f"duplicate_{name}s"
        if sum(map(len, repeated)) > 0.20 * len(text):
            yield f"duplicate_{name}_characters"
    words = divide_words(text.split())
    hashes = hash_words(words)
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    # As many letters of scripts without spaces as n words are long.
    scale = len(words) / max(count_words(words), 1)
    for table, name, fraction in (
        (TOP_NGRAM_LIMITS, "top_{}_gram", _top_ngram_fraction),
        (DUPLICATE_NGRAM_LIMITS, "duplicate_{}_grams", _duplicate_ngram_fraction),
    ):
        sizes = {n: round(n * scale) for n in table}
        for n, grams in zip(table, ngram_hashes_by_length(hashes, sizes.values()), strict=True):
            if grams.size and fraction(grams, lengths, sizes[n]) > table[n]:
                yield name.format(n)


def c4_text(text: str) -> tuple[str, str | None]:
    """Return the lines that C4 keeps, and the rule that drops the page, or None."""
    lowered = text.lower()
    if "lorem ipsum" in lowered:
        return text, "lorem_ipsum"
    if "{" in text:
        return text, "curly_bracket"
    kept = "\n".join(
        line for line in map(_without_citations, text.splitlines()) if _keeps_line(line)
    )
    if len(_SENTENCE_END.findall(kept)) < 3:
        return kept, "sentences"
    return kept, None


def _keeps_line(line: str) -> bool:
    if not line.endswith(TERMINAL_MARKS) or line.endswith("...") or len(line.split()) < 5:
        return False
    lowered = line.lower()
    return "javascript" not in lowered and not any(mark in lowered for mark in POLICY_LINES)


def _without_citations(line: str) -> str:
    return _CITATION.sub("", line).strip()


def _repeats(sections: Sequence[str]) -> list[str]:
    """Return every section that has occurred before."""
    return [section for section, count in Counter(sections).items() for _ in range(count - 1)]


def _top_ngram_fraction(grams: Hashes, lengths: NDArray[np.int64], n: int) -> float:
    """Fraction of characters in the most frequent n-gram, if it occurs more than once."""
    _, first, counts = np.unique(grams, return_index=True, return_counts=True)
    if counts.max() < 2:
        return 0.0
    sizes = np.convolve(lengths, np.ones(n, dtype=np.int64), mode="valid")[first]
    return float((counts * sizes)[counts == counts.max()].max() / lengths.sum())


def _duplicate_ngram_fraction(grams: Hashes, lengths: NDArray[np.int64], n: int) -> float:
    """Fraction of characters inside n-grams that occur more than once."""
    _, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
    covered = np.zeros(lengths.size, dtype=bool)
    for start in np.flatnonzero(counts[inverse] > 1):
        covered[start : start + n] = True
    return float(lengths[covered].sum() / lengths.sum())
