"""Processing one work unit: read, clean, tokenize, and write the unit output.

A unit output is an Arrow file with a row for every document, dropped ones included, and a JSON file
with counts, written last: without it, the output does not exist. Unit outputs are pure functions of
the recipe and the unit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data.build.unit_counts import write_unit_counts
from data.build.unit_output_reader import COLUMNS
from data.cleaning.cleaner import CleanedDocument, Cleaner
from data.cleaning.decontamination import read_evaluation_ngrams
from data.cleaning.minhash import NUM_HASHES, Bands, band_keys, bands_for, minhash_signatures
from data.cleaning.tally import Tally
from data.errors import DataError
from data.recipe import DataRecipe
from data.sources.readers import Document, read_unit
from data.sources.work_units import WorkUnit
from data.storage.atomic import atomic_file
from data.store.writer import HASH_BYTES, dtype_for
from data.tokenization.tokenizer import Tokenizer

BATCH_DOCUMENTS = 512
BATCH_CHARACTERS = 1 << 20
INPUT_FAULTS = frozenset(
    ("empty", "bad_utf8", "bad_json", "no_text", "too_large", "only_special_tokens")
    + ("unreadable", "truncated")
)


def input_faults(tally: Tally) -> int:
    """Count the documents that could not be read."""
    return sum(tally.counts[f"dropped.{reason}"] for reason in INPUT_FAULTS)


@dataclass(frozen=True)
class WorkerSettings:
    """Everything that a worker process needs."""

    recipe: DataRecipe
    tokenizer_text: str
    eos_token: str
    outputs: Path
    """Folder of the unit outputs."""
    strict: bool
    """Whether to refuse the first document that cannot be read, instead of counting it."""


class UnitProcessor:
    """Turns work units into unit outputs; one per process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._tokenizer = Tokenizer(settings.tokenizer_text, "tokenizer.json", settings.eos_token)
        clean = settings.recipe.clean
        self._cleaner = Cleaner(
            clean,
            settings.recipe.max_document_mib << 20,
            tuple(self._tokenizer.info.special_tokens),
            read_evaluation_ngrams(clean.decontaminate) if clean.decontaminate else None,
        )
        similarity = clean.near_duplicates
        self._bands = None if similarity is None else bands_for(similarity)
        self._dtype = dtype_for(self._tokenizer.info.vocab_size)
        self._has_language = clean.needs_language
        self._schema = unit_output_schema(self._dtype, self._bands, self._has_language)

    def process(self, unit: WorkUnit) -> tuple[Tally, int]:
        """Write the output of `unit`; returns its counts and its number of tokens.

        Raises:
            DataError: Under `strict`, the first document that could not be read.
        """
        tally = Tally()
        tokens = 0
        path = self._settings.outputs / f"{unit.name}.arrow"
        with atomic_file(path) as file, pa.ipc.new_file(file, self._schema) as writer:
            for documents in _batched(self._documents(unit)):
                cleaned = [self._cleaner.clean(document, tally) for document in documents]
                if self._settings.strict:
                    _refuse_faults(cleaned)
                batch = self._record_batch(cleaned)
                tokens += len(batch.column("tokens").values)
                writer.write_batch(batch)
        write_unit_counts(path.with_suffix(".json"), tally, tokens, unit.num_bytes)
        return tally, tokens

    def _documents(self, unit: WorkUnit) -> Iterator[Document]:
        recipe = self._settings.recipe
        column = recipe.source[unit.source].text_column
        return read_unit(unit, column, recipe.max_document_mib << 20)

    def _record_batch(self, cleaned: Sequence[CleanedDocument]) -> Any:
        passed = [document.reason is None for document in cleaned]
        texts = [document.text for document in cleaned if document.reason is None]
        ids = self._tokenizer.encode_batch(texts)
        eos = np.array([self._tokenizer.info.eos_id])
        flat = np.concatenate([a for i in ids for a in (i, eos)] or [eos[:0]]).astype(self._dtype)
        sizes = np.zeros(len(cleaned) + 1, dtype=np.int32)
        sizes[1:][passed] = [i.size + 1 for i in ids]
        columns = [
            pa.array([c.document.file for c in cleaned]),
            pa.array([c.document.position for c in cleaned], type=pa.int64()),
            pa.array([c.reason for c in cleaned], type=pa.string()),
            pa.array([c.detail for c in cleaned], type=pa.string()),
            pa.array([c.content_hash for c in cleaned], type=pa.binary(HASH_BYTES)),
            pa.ListArray.from_arrays(pa.array(np.cumsum(sizes, dtype=np.int32)), pa.array(flat)),
        ]
        if self._bands is not None:
            columns += _minhash_columns(cleaned, self._bands)
        if self._has_language:
            columns.append(pa.array([c.language for c in cleaned], type=pa.string()))
        return pa.record_batch(columns, schema=self._schema)


def unit_output_schema(dtype: str, bands: Bands | None, has_language: bool) -> pa.Schema:
    """Return the columns of a unit output."""
    fields: list[Any] = [*COLUMNS, ("tokens", pa.list_(pa.type_for_alias(dtype)))]
    if bands is not None:
        fields.append(("signature", pa.binary(4 * NUM_HASHES)))
        fields += [(f"band_{band}", pa.uint64()) for band in range(bands.count)]
    if has_language:
        fields.append(("language", pa.string()))
    return pa.schema(fields)


def _minhash_columns(cleaned: Sequence[CleanedDocument], bands: Bands) -> list[Any]:
    signatures = np.zeros((len(cleaned), NUM_HASHES), dtype=np.uint32)
    passed = [i for i, document in enumerate(cleaned) if document.reason is None]
    if passed:
        words = [hashes for i in passed if (hashes := cleaned[i].words) is not None]
        signatures[passed] = minhash_signatures(words)
    rows = pa.py_buffer(signatures.tobytes())
    column = pa.Array.from_buffers(pa.binary(4 * NUM_HASHES), len(cleaned), [None, rows])
    return [column, *(pa.array(keys) for keys in band_keys(signatures, bands))]


def _batched(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Group documents so that one record batch stays small."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _refuse_faults(cleaned: Sequence[CleanedDocument]) -> None:
    for c in (c for c in cleaned if c.reason in INPUT_FAULTS):
        where = f"{c.document.file}, position {c.document.position}"
        detail = f" ({c.detail})" if c.detail else ""
        raise DataError(f"{where}: {c.reason}{detail}: mend it, or build without --strict")
