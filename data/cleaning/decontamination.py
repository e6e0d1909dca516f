"""Word runs of evaluation files, to keep documents that contain one out of training.

13 words as in GPT-3 (arXiv:2005.14165, appendix C); an evaluation text of 8 to 12 words counts
whole, one with fewer is left unchecked because common phrases are that long, and is counted.
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

RUN_WORDS = 13
FEWEST_WORDS = 8


@dataclass(frozen=True)
class EvaluationNgrams:
    """Sorted hashes of evaluation files' word runs, by length in words."""

    runs: dict[int, Hashes]
    texts: int
    """Evaluation texts read."""
    unchecked: int
    """Texts of fewer than 8 words, which cannot be looked for."""

    def found_in(self, words: Hashes) -> bool:
        """Tell whether a text, as its words' hashes, holds any of the runs."""
        return any(
            bool(_contains(runs, ngram_hashes(words, n)).any()) for n, runs in self.runs.items()
        )


def read_evaluation_ngrams(paths: tuple[Path, ...]) -> EvaluationNgrams:
    """Read evaluation files: text, or every string in JSONL, Parquet and Arrow records.

    Raises:
        DataError: A file is missing or cannot be read.
    """
    gathered: dict[int, list[Hashes]] = {}
    texts = unchecked = 0
    for text in (text for path in paths for text in _texts(path)):
        words = word_hashes(text)
        texts += 1
        n = min(words.size, RUN_WORDS)
        if n < FEWEST_WORDS:
            unchecked += 1
        else:
            gathered.setdefault(n, []).append(ngram_hashes(words, n))
    runs = {n: np.unique(np.concatenate(hashes)) for n, hashes in sorted(gathered.items())}
    return EvaluationNgrams(runs, texts, unchecked)


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
        for piece in split_stream(path, compression, separator, UNIT_BYTES, UNIT_BYTES):
            for fault in piece.faults:
                raise ValueError(f"{fault.reason} at byte {fault.position} ({fault.detail})")
            for content in filter(bytes.strip, piece.documents):
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


def _contains(sorted_hashes: Hashes, wanted: Hashes) -> Any:
    places = np.searchsorted(sorted_hashes, wanted)
    return sorted_hashes[np.minimum(places, sorted_hashes.size - 1)] == wanted
