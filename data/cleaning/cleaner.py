"""The cleaning steps of one document, in the recipe's order, each counted."""

import hashlib
import importlib
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data.cleaning.decontamination import EvaluationNgrams
from data.cleaning.personal_data import find_personal_data, mask_personal_data
from data.cleaning.quality import c4_text, gopher_quality, gopher_repetition
from data.cleaning.tally import Tally
from data.cleaning.word_hashes import (
    Hashes,
    count_words,
    divide_words,
    word_hashes,
)
from data.errors import DataError
from data.json_text import find_lone_surrogate
from data.recipe import CleanRecipe
from data.sources.readers import Document
from data.store.writer import HASH_BYTES
from data.visible_text import has_visible_text

PROFILE_CHARACTERS = 4096
LANGUAGE_CHARACTERS = 2048


@dataclass(frozen=True)
class CleanedDocument:
    """A document after cleaning; `reason` is set where it is dropped."""

    document: Document
    text: str = ""
    content_hash: bytes = bytes(HASH_BYTES)
    reason: str | None = None
    detail: str | None = None
    words: Hashes | None = None
    """Hashed words, where a later step needs them."""
    language: str | None = None
    """Code, where the recipe has it identified."""


class _Rejection(NamedTuple):
    """Why a document is dropped."""

    reason: str
    detail: str | None = None


class Cleaner:
    """Runs the cleaning steps of a recipe on documents."""

    def __init__(
        self,
        recipe: CleanRecipe,
        max_document_bytes: int,
        special_tokens: tuple[str, ...],
        evaluations: EvaluationNgrams | None,
    ) -> None:
        self._recipe = recipe
        self._max_document_bytes = max_document_bytes
        self._special_tokens = special_tokens
        self._evaluations = evaluations
        self._identify = language_identifier(recipe.languages) if recipe.needs_language else None

    def clean(self, document: Document, tally: Tally) -> CleanedDocument:
        """Run every step on a document and count what happened in `tally`."""
        tally.counts["read"] += 1
        cleaned = self._clean(document, tally)
        if cleaned.reason is not None:
            tally.counts[f"dropped.{cleaned.reason}"] += 1
        return cleaned

    def _clean(self, document: Document, tally: Tally) -> CleanedDocument:
        if document.reason is not None:
            return CleanedDocument(document, reason=document.reason, detail=document.detail)
        if len(document.text) > self._max_document_bytes:
            detail = f"{len(document.text)} characters"
            return CleanedDocument(document, reason="too_large", detail=detail)
        text = self._normalized(document.text, tally)
        language = None
        rejection = self._check_length(text)
        if rejection is None:
            text, rejection = self._apply_quality_rules(text, tally)
        if rejection is None and self._identify is not None:
            language = self._identify(text[:LANGUAGE_CHARACTERS])
            rejection = self._check_language(language, tally)
        if rejection is None and self._recipe.personal_data != "keep":
            text, rejection = self._apply_personal_data(text, tally)
        if rejection is not None:
            return CleanedDocument(document, reason=rejection.reason, detail=rejection.detail)
        return self._finalize(document, text, language, tally)

    def _finalize(
        self, document: Document, text: str, language: str | None, tally: Tally
    ) -> CleanedDocument:
        try:
            content = text.encode()
        except UnicodeEncodeError:
            return CleanedDocument(document, reason="bad_utf8", detail="a lone surrogate")
        if len(content) > self._max_document_bytes:
            return CleanedDocument(document, reason="too_large", detail=f"{len(content)} bytes")
        words = None
        if self._evaluations is not None or self._recipe.near_duplicates is not None:
            words = word_hashes(text)
        if self._evaluations is not None and words is not None:
            # As read, too: masks and removed lines would hide what evaluation files still have.
            versions = (words, word_hashes(document.text)) if document.text != text else (words,)
            if any(map(self._evaluations.overlaps, versions)):
                return CleanedDocument(document, reason="contaminated")
        tally.counts["bytes"] += len(content)
        _add_to_histograms(text, tally)
        digest = hashlib.blake2b(content, digest_size=HASH_BYTES).digest()
        if words is not None and not words.size:  # only punctuation: similar to nothing but itself
            words = np.frombuffer(digest, dtype=np.uint64)
        return CleanedDocument(document, text, digest, words=words, language=language)

    def _normalized(self, text: str, tally: Tally) -> str:
        if self._recipe.unicode == "none":
            return text
        normalized = unicodedata.normalize(self._recipe.unicode.upper(), text)  # type: ignore[arg-type]
        tally.counts["changed.unicode"] += normalized != text
        return normalized

    def _check_length(self, text: str) -> _Rejection | None:
        if not has_visible_text(text):
            half = find_lone_surrogate(text)
            return _Rejection("bad_utf8", "a lone surrogate") if half else _Rejection("empty")
        detail = f"{len(text)} characters"
        if len(text) < self._recipe.min_characters:
            return _Rejection("too_short", detail)
        limit = self._recipe.max_characters
        if limit is not None and len(text) > limit:
            return _Rejection("too_long", detail)
        if text.lstrip().startswith(self._special_tokens):
            remainder = text
            for token in self._special_tokens:
                remainder = remainder.replace(token, "")
            return None if remainder.strip() else _Rejection("only_special_tokens")
        return None

    def _apply_quality_rules(self, text: str, tally: Tally) -> tuple[str, _Rejection | None]:
        for rules in self._recipe.quality:
            before = text
            if rules == "c4":
                text, broken = c4_text(text)
                tally.counts["changed.c4"] += broken is None and text != before
            else:
                check = gopher_quality if rules == "gopher_quality" else gopher_repetition
                broken = check(text)
            if broken is not None:
                return before, _Rejection(f"{rules}.{broken}")
        return text, None

    def _check_language(self, language: str, tally: Tally) -> _Rejection | None:
        tally.counts[f"language.{language}"] += 1
        if not self._recipe.languages or language in self._recipe.languages:
            return None
        return _Rejection("language", language)

    def _apply_personal_data(self, text: str, tally: Tally) -> tuple[str, _Rejection | None]:
        findings = find_personal_data(text)
        tally.counts.update(f"found.{finding.kind}" for finding in findings)
        if findings and self._recipe.personal_data == "drop":
            kinds = ", ".join(sorted({finding.kind for finding in findings}))
            return text, _Rejection("personal_data", kinds)
        tally.counts["changed.personal_data"] += bool(findings)
        return mask_personal_data(text, findings), None


def language_identifier(wanted: Sequence[str] = ()) -> Any:
    """Return a function that maps a text to the code of its language.

    Args:
        wanted: Codes that documents will be compared with.

    Raises:
        DataError: py3langid is not installed, or does not know a code that is wanted.
    """
    try:
        langid = importlib.import_module("py3langid")
    except ImportError:
        raise DataError(
            "clean.languages needs py3langid: pip install 'moescale[clean]', or remove it"
        ) from None
    known = {str(code) for code, _ in langid.rank("")} if wanted else set()
    for code in wanted:
        if code not in known:
            there = ", ".join(sorted(known))
            raise DataError(f"clean.languages: py3langid knows no {code!r}: it knows {there}")
    return lambda text: str(langid.classify(text)[0])


def _add_to_histograms(text: str, tally: Tally) -> None:
    """Count the length of a document that passed and, at its beginning, properties of its words."""
    tally.add_to_histogram("characters", 2 ** math.floor(math.log2(len(text))))
    words = text.lstrip()[:PROFILE_CHARACTERS].split()
    mean_length = sum(map(len, words)) / count_words(divide_words(words))
    tally.add_to_histogram("mean_word_length", min(math.floor(2 * mean_length) / 2, 20.0))
    alphabetic = sum(map(str.isalpha, words)) / len(words)
    tally.add_to_histogram("alphabetic_words", math.floor(20 * alphabetic) / 20)
    distinct = len(set(words)) / len(words)
    tally.add_to_histogram("distinct_words", math.floor(20 * distinct) / 20)
