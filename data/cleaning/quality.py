"""Quality rules of Gopher and C4, each under the name by which dropped documents are counted.

Gopher: Rae et al., arXiv:2112.11446, appendix A1.1 (quality) and table A1 (repetition).
C4: Raffel et al., arXiv:1910.10683, section 2.2, without its list of offensive words and its
removal of repeated three-sentence spans (deduplication is a step of its own here).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data.cleaning.word_hashes import Hashes, hash_words, ngram_hashes

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
    if not 50 <= len(words) <= 100_000:
        yield "word_count"
    if not 3 <= sum(map(len, words)) / len(words) <= 10:
        yield "mean_word_length"
    if max(text.count("#"), sum(map(text.count, ELLIPSES))) > 0.1 * len(words):
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
    words = text.split()
    hashes = hash_words(words)
    lengths = np.array([len(word) for word in words], dtype=np.int64)
    for n, limit in TOP_NGRAM_LIMITS.items():
        if _top_ngram_fraction(hashes, lengths, n) > limit:
            yield f"top_{n}_gram"
    for n, limit in DUPLICATE_NGRAM_LIMITS.items():
        if _duplicate_ngram_fraction(hashes, lengths, n) > limit:
            yield f"duplicate_{n}_grams"


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


def _top_ngram_fraction(hashes: Hashes, lengths: NDArray[np.int64], n: int) -> float:
    """Fraction of characters in the most frequent n-gram, if it occurs more than once."""
    grams = ngram_hashes(hashes, n)
    if not grams.size:
        return 0.0
    _, first, counts = np.unique(grams, return_index=True, return_counts=True)
    if counts.max() < 2:
        return 0.0
    sizes = np.convolve(lengths, np.ones(n, dtype=np.int64), mode="valid")[first]
    return float((counts * sizes)[counts == counts.max()].max() / lengths.sum())


def _duplicate_ngram_fraction(hashes: Hashes, lengths: NDArray[np.int64], n: int) -> float:
    """Fraction of characters inside n-grams that occur more than once."""
    grams = ngram_hashes(hashes, n)
    if not grams.size:
        return 0.0
    _, inverse, counts = np.unique(grams, return_inverse=True, return_counts=True)
    covered = np.zeros(lengths.size, dtype=bool)
    for start in np.flatnonzero(counts[inverse] > 1):
        covered[start : start + n] = True
    return float(lengths[covered].sum() / lengths.sum())
