"""Word n-grams of evaluation files: documents that contain one are kept out of training.

13-grams as in GPT-3 (arXiv:2005.14165, appendix C). An evaluation text of 8 to 12 words is one
n-gram; one with fewer is not checked, because common phrases are that long, but counted.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.cleaning.word_hashes import Hashes, ngram_hashes, word_hashes
from data.errors import DataError
from data.sources.discovery import COMPRESSIONS, file_format, walk_files
from data.sources.stream_splitter import split_stream
from data.sources.work_units import UNIT_BYTES, arrow_batches

NGRAM_WORDS = 13
MIN_WORDS = 8


@dataclass(frozen=True)
class EvaluationNgrams:
    """Hashes of the word n-grams of evaluation files."""

    hashes: dict[int, Hashes]
    """Sorted, by n."""
    texts: int
    """Evaluation texts read."""
    unchecked: int
    """Texts of fewer than 8 words, which are not searched for."""

    def overlaps(self, words: Hashes) -> bool:
        """Check whether a text, given as the hashes of its words, contains any of the n-grams."""
        return any(
            bool(_contains(known, ngram_hashes(words, n)).any()) for n, known in self.hashes.items()
        )


def read_evaluation_ngrams(paths: tuple[Path, ...]) -> EvaluationNgrams:
    """Read evaluation files: text, or every string in JSONL, Parquet and Arrow records.

    Raises:
        DataError: A file is missing or cannot be read.
    """
    by_length: dict[int, list[Hashes]] = {}
    texts = unchecked = 0
    for text in (text for path in paths for text in _texts(path)):
        words = word_hashes(text)
        texts += 1
        n = min(words.size, NGRAM_WORDS)
        if n < MIN_WORDS:
            unchecked += 1
        else:
            by_length.setdefault(n, []).append(ngram_hashes(words, n))
    hashes = {n: np.unique(np.concatenate(some)) for n, some in sorted(by_length.items())}
    return EvaluationNgrams(hashes, texts, unchecked)


def _texts(root: Path) -> Iterator[str]:
    for path in walk_files(root):
        try:
            yield from _file_texts(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{path}: evaluation file: {error}") from None


def _file_texts(path: Path) -> Iterator[str]:
    kind = file_format(path)
    if kind == "parquet":
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches():
                yield from _strings(batch.to_pylist())
    elif kind == "arrow":
        with pa.memory_map(str(path)) as mapped:
            for batch in arrow_batches(mapped)[1]:
                yield from _strings(batch.to_pylist())
    else:
        separator = b"\n" if kind == "json" else b""
        compression = COMPRESSIONS.get(path.suffix)
        for chunk in split_stream(path, compression, separator, UNIT_BYTES, UNIT_BYTES):
            for fault in chunk.faults:
                raise ValueError(f"{fault.reason} at byte {fault.position} ({fault.detail})")
            for content in filter(bytes.strip, chunk.documents):
                yield from _strings(json.loads(content) if kind == "json" else content.decode())


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
