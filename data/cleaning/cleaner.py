"""The cleaning steps of one document, in the recipe's order, each counted."""

import hashlib
import importlib
import math
import unicodedata
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data.cleaning.decontamination import EvaluationNgrams
from data.cleaning.personal_data import find_personal_data, mask_personal_data
from data.cleaning.quality import c4_text, gopher_quality, gopher_repetition
from data.cleaning.tally import Tally
from data.cleaning.word_hashes import Hashes, word_hashes
from data.errors import DataError
from data.recipe import CleanRecipe
from data.sources.readers import Document
from data.store.writer import HASH_BYTES

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
    """ISO 639-1 code, where the recipe has it told."""


class _Fault(NamedTuple):
    """Why a document is dropped."""

    reason: str
    detail: str | None = None


class Cleaner:
    """Runs the recipe's steps on documents."""

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
        self._identify = language_identifier() if recipe.needs_language else None

    def clean(self, document: Document, tally: Tally) -> CleanedDocument:
        """Run every step; counts it in `tally`."""
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
        text = self._normalised(document.text, tally)
        language = None
        fault = self._length_fault(text)
        if fault is None:
            text, fault = self._quality(text, tally)
        if fault is None and self._identify is not None:
            language = self._identify(text[:LANGUAGE_CHARACTERS])
            fault = self._language_fault(language, tally)
        if fault is None and self._recipe.personal_data != "keep":
            text, fault = self._personal(text, tally)
        if fault is not None:
            return CleanedDocument(document, reason=fault.reason, detail=fault.detail)
        return self._finished(document, text, language, tally)

    def _finished(
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
        if (
            self._evaluations is not None
            and words is not None
            and self._evaluations.found_in(words)
        ):
            return CleanedDocument(document, reason="contaminated")
        tally.counts["bytes"] += len(content)
        _profile(text, tally)
        digest = hashlib.blake2b(content, digest_size=HASH_BYTES).digest()
        if words is not None and not words.size:  # only marks: near to nothing but itself
            words = np.frombuffer(digest, dtype=np.uint64)
        return CleanedDocument(document, text, digest, words=words, language=language)

    def _normalised(self, text: str, tally: Tally) -> str:
        if self._recipe.unicode == "none":
            return text
        normalised = unicodedata.normalize(self._recipe.unicode.upper(), text)  # type: ignore[arg-type]
        tally.counts["changed.unicode"] += normalised != text
        return normalised

    def _length_fault(self, text: str) -> _Fault | None:
        if not text or text.isspace():
            return _Fault("empty")
        detail = f"{len(text)} characters"
        if len(text) < self._recipe.min_characters:
            return _Fault("too_short", detail)
        longest = self._recipe.max_characters
        if longest is not None and len(text) > longest:
            return _Fault("too_long", detail)
        if text.lstrip().startswith(self._special_tokens):
            rest = text
            for token in self._special_tokens:
                rest = rest.replace(token, "")
            return None if rest.strip() else _Fault("only_special_tokens")
        return None

    def _quality(self, text: str, tally: Tally) -> tuple[str, _Fault | None]:
        for rules in self._recipe.quality:
            before = text
            if rules == "c4":
                text, broken = c4_text(text)
                tally.counts["changed.c4"] += broken is None and text != before
            else:
                broken = (gopher_quality if rules == "gopher_quality" else gopher_repetition)(text)
            if broken is not None:
                return before, _Fault(f"{rules}.{broken}")
        return text, None

    def _language_fault(self, language: str, tally: Tally) -> _Fault | None:
        tally.counts[f"language.{language}"] += 1
        if not self._recipe.languages or language in self._recipe.languages:
            return None
        return _Fault("language", language)

    def _personal(self, text: str, tally: Tally) -> tuple[str, _Fault | None]:
        findings = find_personal_data(text)
        tally.counts.update(f"found.{finding.kind}" for finding in findings)
        if findings and self._recipe.personal_data == "drop":
            kinds = ", ".join(sorted({finding.kind for finding in findings}))
            return text, _Fault("personal_data", kinds)
        tally.counts["changed.personal_data"] += bool(findings)
        return mask_personal_data(text, findings), None


def language_identifier() -> Any:
    """Return a function from text to its ISO 639-1 code.

    Raises:
        DataError: py3langid is not installed.
    """
    try:
        langid = importlib.import_module("py3langid")
    except ImportError:
        raise DataError(
            "clean.languages needs py3langid: pip install 'moescale[clean]', or remove it"
        ) from None
    return lambda text: str(langid.classify(text)[0])


def _profile(text: str, tally: Tally) -> None:
    """Count a kept document's length and, from its beginning, the look of its words."""
    tally.add_to_histogram("characters", 2 ** math.floor(math.log2(len(text))))
    words = text.lstrip()[:PROFILE_CHARACTERS].split()
    mean_length = sum(map(len, words)) / len(words)
    tally.add_to_histogram("mean_word_length", min(math.floor(2 * mean_length) / 2, 20.0))
    alphabetic = sum(map(str.isalpha, words)) / len(words)
    tally.add_to_histogram("alphabetic_words", math.floor(20 * alphabetic) / 20)
    distinct = len(set(words)) / len(words)
    tally.add_to_histogram("distinct_words", math.floor(20 * distinct) / 20)
