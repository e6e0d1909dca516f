"""Word n-grams of evaluation files: documents that contain one are kept out of training.

13-grams as in GPT-3 (arXiv:2005.14165, appendix C). An evaluation text of 8 to 12 words is one
n-gram; one with fewer is not checked, because common phrases are that long, but counted. Words are
compared after the normalization of `word_hashes.py`, on both sides. Letters of scripts without
spaces are words there, so that n is larger in such texts: as many as 13 words are long.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.cleaning.word_hashes import (
    Hashes,
    count_words,
    hash_words,
    ngram_hashes,
    ngram_hashes_by_length,
    split_words,
)
from data.errors import DataError
from data.json_text import decode_text, parse_json
from data.plain_text import printable
from data.sources.discovery import compression, file_format, walk_files
from data.sources.stream_splitter import split_stream
from data.sources.table_files import arrow_batches, map_arrow, open_parquet
from data.sources.work_units import UNIT_BYTES

NGRAM_WORDS = 13
MIN_WORDS = 8
LENGTH_STEP = 4
"""N-grams longer than `NGRAM_WORDS`, of scripts without spaces, are multiples of it."""
BATCH_ROWS = 256


@dataclass(frozen=True)
class EvaluationNgrams:
    """Hashes of the word n-grams of evaluation files."""

    hashes: dict[int, Hashes]
    """Sorted, by n, which ascends."""
    texts: int
    """Evaluation texts read."""
    unchecked: int
    """Texts of fewer than 8 words, which are not searched for."""
    ignored: Counter[str]
    """Files in the folders that are in no supported format, by suffix."""

    def overlaps(self, words: Hashes) -> bool:
        """Check whether a text, given as the hashes of its words, contains any of the n-grams."""
        grams = ngram_hashes_by_length(words, self.hashes)
        return any(
            bool(_contains(known, hashes).any())
            for known, hashes in zip(self.hashes.values(), grams, strict=True)
        )


def read_evaluation_ngrams(paths: tuple[Path, ...]) -> EvaluationNgrams:
    """Read evaluation files: text, or every string in JSONL, Parquet and Arrow records.

    Raises:
        DataError: A file is missing or cannot be read, or a path has no text.
    """
    by_length: dict[int, list[Hashes]] = {}
    ignored: Counter[str] = Counter()
    texts = unchecked = 0
    for path in paths:
        before = texts
        for text in _texts(path, ignored):
            words = split_words(text)
            texts += 1
            n = _ngram_length(words)
            if n is None:
                unchecked += 1
            else:
                by_length.setdefault(n, []).append(ngram_hashes(hash_words(words), n))
        if texts == before:
            raise DataError(
                f"{printable(path)}: clean.decontaminate: no evaluation text in it: give text,"
                " JSONL, Parquet or Arrow files"
            )
    hashes = {n: np.unique(np.concatenate(some)) for n, some in sorted(by_length.items())}
    return EvaluationNgrams(hashes, texts, unchecked, ignored)


def _ngram_length(words: list[str]) -> int | None:
    """Return the n of a text's n-grams, or None where it is too short to be searched for."""
    count = count_words(words)
    if count < MIN_WORDS:
        return None
    n = int(len(words) * min(1, NGRAM_WORDS / count))
    return n if n <= NGRAM_WORDS else n - n % LENGTH_STEP  # few lengths: each costs a search


def _texts(root: Path, ignored: Counter[str]) -> Iterator[str]:
    for path in walk_files(root, ignored):
        try:
            yield from _file_texts(path)
        except RecursionError:
            raise DataError(f"{printable(path)}: evaluation file: nested too deeply") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            detail = " ".join(str(error).split())
            raise DataError(f"{printable(path)}: evaluation file: {detail}") from None


def _file_texts(path: Path) -> Iterator[str]:
    kind = file_format(path)
    if kind == "parquet":
        with open_parquet(path) as table:
            for batch in table.iter_batches(BATCH_ROWS):
                yield from _strings(batch.to_pylist())
    elif kind == "arrow":
        with map_arrow(path) as mapped:
            for batch in arrow_batches(mapped)[1]:
                yield from _strings(batch.to_pylist())
    else:
        separator = b"\n" if kind == "json" else b""
        for chunk in split_stream(path, compression(path), separator, UNIT_BYTES, UNIT_BYTES):
            for fault in chunk.faults:
                raise ValueError(f"{fault.reason} at byte {fault.position} ({fault.detail})")
            for content in filter(bytes.strip, chunk.documents):
                yield from _strings(parse_json(content) if kind == "json" else decode_text(content))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _contains(sorted_hashes: Hashes, hashes: Hashes) -> Any:
    """Return for each of `hashes` whether it is among `sorted_hashes`."""
    positions = np.searchsorted(sorted_hashes, hashes)
    return sorted_hashes[np.minimum(positions, sorted_hashes.size - 1)] == hashes
