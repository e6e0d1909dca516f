"""The rows of chat files, each as a line of JSON: what `moe data build` reads, in its formats."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from data.errors import DataError
from data.json_text import ARRAY_REMEDY
from data.sources.discovery import compression, file_format, refuse_unread_compression
from data.sources.stream_splitter import READ_BYTES, split_stream
from data.sources.table_files import arrow_batches, map_arrow, open_parquet
from data.store.manifest import check_source_name

BATCH_ROWS = 256
MAX_ROW_BYTES = 1 << 28
"""Of a line in a compressed file, where a few bytes may stand for any number."""


def source_name(file: Path) -> str:
    """Return the name of a file's source: the file's, without suffixes of form and compression.

    Raises:
        DataError: No source can have it, or the file is of a compression that is not read.
    """
    refuse_unread_compression(file)
    name = (Path(file.stem) if compression(file) else file).stem
    check_source_name(name, f"{file}")
    return name


def read_rows(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield where each row of a file is, and the row as a line of JSON; blank lines are none.

    Raises:
        DataError: The file is damaged or cut off, or an array instead of lines.
        OSError: It cannot be read.
    """
    if file_format(file) in {"parquet", "arrow"}:
        yield from _table_rows(file)
        return
    lines = _lines(file) if compression(file) is None else _compressed_lines(file)
    for number, (place, line) in enumerate(lines):
        if not number and line.lstrip().startswith(b"["):
            raise DataError(f"{file}: {ARRAY_REMEDY}")
        yield f"{file}, {place}", line


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield f"line {number}", line


def _compressed_lines(file: Path) -> Iterator[tuple[str, bytes]]:
    for chunk in split_stream(file, compression(file), b"\n", READ_BYTES, MAX_ROW_BYTES):
        for position, line in zip(chunk.positions, chunk.documents, strict=True):
            yield f"byte {position} of what is unpacked", line
        for fault in chunk.faults:
            raise DataError(
                f"{file}, byte {fault.position} of what is unpacked: {fault.reason}"
                f" ({fault.detail}): give a complete file"
            )


def _table_rows(file: Path) -> Iterator[tuple[str, bytes]]:
    number = 0
    try:
        for batch in _batches(file):
            for row in batch.to_pylist():
                number += 1
                # What JSON has no form for (dates, bytes) stands beside the messages, as text.
                yield f"{file}, row {number}", json.dumps(row, default=str).encode()
    except (OSError, ValueError, pa.ArrowException) as error:
        detail = " ".join(str(error).split())
        raise DataError(
            f"{file}, after row {number}: unreadable ({detail}): give a complete file"
        ) from None


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    if file_format(file) == "parquet":
        with open_parquet(file) as table:
            yield from table.iter_batches(BATCH_ROWS)
    else:
        with map_arrow(file) as mapped:
            for batch in arrow_batches(mapped)[1]:
                for first in range(0, batch.num_rows, BATCH_ROWS):
                    yield batch.slice(first, BATCH_ROWS)
