"""All unit outputs of a build, read as one sequence of documents in bounded memory."""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.cleaning.minhash import NUM_HASHES
from data.described_files import file_inside
from data.errors import DataError
from data.store.writer import HASH_BYTES

OPEN_FILES = 4
COLUMNS = [
    pa.field("file", pa.string()),
    pa.field("position", pa.int64()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
    pa.field("hash", pa.binary(HASH_BYTES)),
]
"""Of every unit output; further ones depend on the recipe."""

Indices = NDArray[np.int64]


class UnitOutputs:
    """The documents of all unit outputs, in order; only a few files are mapped at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open = lru_cache(OPEN_FILES)(_open_batches)
        sizes = [[batch.num_rows for batch in batches] for batches in map(_checked_batches, paths)]
        self._first_batch: Indices = np.cumsum([0, *map(len, sizes)], dtype=np.int64)
        self.starts: Indices = np.cumsum([0, *(n for rows in sizes for n in rows)], dtype=np.int64)
        """Index of the first document of each record batch; last, the number of documents."""

    def __len__(self) -> int:
        """Return the number of documents, dropped ones included."""
        return int(self.starts[-1])

    def batches(self) -> Iterator[tuple[int, Any]]:
        """Yield every record batch with the index of its first document, in order."""
        number = 0
        for path in self._paths:
            for batch in _open_batches(path):
                yield int(self.starts[number]), batch
                number += 1

    def uint64_column(self, name: str) -> NDArray[np.uint64]:
        """Return an unsigned 64-bit column over all documents."""
        values = np.empty(len(self), dtype=np.uint64)
        for start, batch in self.batches():
            values[start : start + batch.num_rows] = batch.column(name).to_numpy()
        return values

    def hashes(self) -> NDArray[np.uint64]:
        """Return both halves of each document's content hash, big endian, uint64 [documents, 2]."""
        hashes = np.empty((len(self), 2), dtype=np.uint64)
        for start, batch in self.batches():
            hashes[start : start + batch.num_rows] = _fixed_rows(batch.column("hash"), ">u8", 2)
        return hashes

    def passed(self) -> NDArray[np.bool_]:
        """Return which documents passed cleaning."""
        passed = np.empty(len(self), dtype=bool)
        for start, batch in self.batches():
            passed[start : start + batch.num_rows] = pc.is_null(batch.column("reason"))
        return passed

    def signatures(self, documents: Indices) -> NDArray[np.uint32]:
        """Return the MinHash signatures of documents, uint32 [documents, NUM_HASHES]."""
        signatures = np.empty((documents.size, NUM_HASHES), dtype=np.uint32)
        batches = np.searchsorted(self.starts, documents, side="right") - 1
        for number in np.unique(batches).tolist():
            here = np.flatnonzero(batches == number)
            rows = _fixed_rows(self._batch(number).column("signature"), "<u4", NUM_HASHES)
            signatures[here] = rows[documents[here] - self.starts[number]]
        return signatures

    def location(self, document: int) -> str:
        """Return the input file and position of a document, as `FILE:POSITION`."""
        number = int(np.searchsorted(self.starts, document, side="right")) - 1
        row = document - int(self.starts[number])
        batch = self._batch(number)
        return f"{batch.column('file')[row]}:{batch.column('position')[row]}"

    def _batch(self, number: int) -> Any:
        file = int(np.searchsorted(self._first_batch, number, side="right")) - 1
        return self._open(self._paths[file])[number - int(self._first_batch[file])]


def _open_batches(path: Path) -> list[Any]:
    reader = pa.ipc.open_file(pa.memory_map(os.fsencode(path)))
    return [reader.get_batch(i) for i in range(reader.num_record_batches)]


def _checked_batches(path: Path) -> list[Any]:
    """Open a unit output for the first time: build shards come from other machines."""
    try:
        batches = _open_batches(file_inside(path.parent, path.name))
        for batch in batches:
            batch.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        detail = " ".join(str(error).split())
        raise DataError(f"{path}: damaged ({detail}): remove the build, start again") from None
    for field in COLUMNS:
        if any(field not in batch.schema for batch in batches):
            raise DataError(f"{path}: no column {field.name}: remove the build, start again")
    return batches


def _fixed_rows(column: Any, dtype: str, width: int) -> NDArray[Any]:
    """View a fixed-size binary array as numbers, [rows, width], without copying."""
    numbers: NDArray[Any] = np.frombuffer(column.buffers()[1], dtype=dtype).reshape(-1, width)
    return numbers[column.offset : column.offset + len(column)]
