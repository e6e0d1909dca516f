"""Reading the documents of one work unit, whatever its format; what cannot be read has a reason."""

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data.json_text import BadLineError, parse_json
from data.sources.stream_splitter import READ_BYTES, StreamFault, split_stream
from data.sources.work_units import WorkUnit, arrow_batches

BATCH_ROWS = 256


@dataclass(frozen=True)
class Document:
    """One document, or the reason why there is none."""

    file: str
    position: int
    """Byte offset in the (decompressed) file, or row number in a table."""
    text: str = ""
    reason: str | None = None
    detail: str | None = None


def read_unit(unit: WorkUnit, text_column: str, max_document_bytes: int) -> Iterator[Document]:
    """Yield every document of a unit in order; those that cannot be read have a reason."""
    if unit.payload is not None:
        yield from _split_documents(unit, unit.positions, unit.payload, unit.faults, text_column)
    elif unit.separator is not None:
        yield from _stream(unit, text_column, max_document_bytes)
    elif unit.format == "text":
        for path in unit.paths:
            yield _file_document(path, max_document_bytes)
    elif unit.format == "json":
        yield from _json_lines(unit, text_column, max_document_bytes)
    else:
        yield from _table(unit, text_column, max_document_bytes)


def _stream(unit: WorkUnit, text_column: str, max_document_bytes: int) -> Iterator[Document]:
    path = unit.paths[0]
    assert unit.separator is not None
    try:
        for chunk in split_stream(
            path, unit.compression, unit.separator, READ_BYTES, max_document_bytes
        ):
            yield from _split_documents(
                unit, chunk.positions, chunk.documents, chunk.faults, text_column
            )
    except OSError as error:
        yield Document(str(path), 0, reason="unreadable", detail=error.strerror)


def _split_documents(
    unit: WorkUnit,
    positions: Sequence[int],
    contents: Sequence[bytes],
    faults: Sequence[StreamFault],
    text_column: str,
) -> Iterator[Document]:
    file = str(unit.paths[0])
    for position, content in zip(positions, contents, strict=True):
        if unit.format != "json":
            yield _from_bytes(file, position, content)
        elif content.strip():
            yield _from_json(file, position, content, text_column)
    for fault in faults:
        yield Document(file, fault.position, reason=fault.reason, detail=fault.detail)


def _file_document(path: Path, max_document_bytes: int) -> Document:
    try:
        size = path.stat().st_size
        if size > max_document_bytes:
            return Document(str(path), 0, reason="too_large", detail=f"{size} bytes")
        return _from_bytes(str(path), 0, path.read_bytes())
    except OSError as error:
        return Document(str(path), 0, reason="unreadable", detail=error.strerror)


def _json_lines(unit: WorkUnit, text_column: str, max_document_bytes: int) -> Iterator[Document]:
    path = unit.paths[0]
    try:
        with path.open("rb") as file:
            for position, line, num_bytes in _lines(file, unit.start, unit.end, max_document_bytes):
                if line is None:
                    detail = f"{num_bytes} bytes"
                    yield Document(str(path), position, reason="too_large", detail=detail)
                elif line.strip():
                    yield _from_json(str(path), position, line, text_column)
    except OSError as error:
        yield Document(str(path), unit.start, reason="unreadable", detail=error.strerror)


def _lines(
    file: BinaryIO, start: int, end: int, max_bytes: int
) -> Iterator[tuple[int, bytes | None, int]]:
    """Yield (offset, line, bytes) of lines that start in [start, end); a line too long is None."""
    if start:
        file.seek(start - 1)
        _skip_line(file)
    while (position := file.tell()) < end:
        line = file.readline(max_bytes + 1)
        num_bytes = len(line)
        if num_bytes > max_bytes and not line.endswith(b"\n"):
            num_bytes += _skip_line(file)
            yield position, None, num_bytes
        else:
            yield position, line, num_bytes


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while chunk := file.readline(READ_BYTES):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _table(unit: WorkUnit, text_column: str, max_document_bytes: int) -> Iterator[Document]:
    file = str(unit.paths[0])
    row = unit.first_row
    try:
        for array in _table_columns(unit, text_column):
            for first in range(0, len(array), BATCH_ROWS):
                for content in _rows(array.slice(first, BATCH_ROWS), max_document_bytes):
                    if content is None:
                        detail = f"{text_column} is null"
                        yield Document(file, row, reason="no_text", detail=detail)
                    elif isinstance(content, int):
                        yield Document(file, row, reason="too_large", detail=f"{content} bytes")
                    else:
                        yield _from_bytes(file, row, content)
                    row += 1
    except (OSError, pa.ArrowException) as error:
        detail = " ".join(str(error).split())
        yield Document(file, row, reason="unreadable", detail=f"{detail} (with what follows it)")


def _rows(array: Any, max_bytes: int) -> Iterator[bytes | int | None]:
    """Yield the bytes of each row, the length of one longer than `max_bytes`, or None for null."""
    indices = None
    if pa.types.is_dictionary(array.type):
        indices, array = array.indices, array.dictionary
    values = _as_binary(array)
    lengths = pc.binary_length(values)
    if (pc.max(lengths).as_py() or 0) <= max_bytes:
        yield from (values if indices is None else values.take(indices)).to_pylist()
        return
    for index in range(len(values)) if indices is None else indices.to_pylist():
        length = None if index is None else lengths[index].as_py()
        yield length if length is None or length > max_bytes else values[index].as_py()


def _as_binary(array: Any) -> Any:
    """View strings as bytes: Arrow does not guarantee that those of a file are UTF-8."""
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    is_large = pa.types.is_large_string(array.type)
    return array.view(pa.large_binary() if is_large else pa.binary())


def _table_columns(unit: WorkUnit, column: str) -> Iterator[Any]:
    if unit.format == "parquet":
        # Unbuffered, a reader would hold complete column chunks, however large.
        with pq.ParquetFile(unit.paths[0], buffer_size=READ_BYTES, pre_buffer=False) as table:
            groups = list(range(unit.start, unit.end))
            for batch in table.iter_batches(BATCH_ROWS, row_groups=groups, columns=[column]):
                yield batch.column(0)
        return
    with pa.memory_map(str(unit.paths[0])) as mapped:
        for batch in arrow_batches(mapped, unit.start, unit.end)[1]:
            yield batch.column(column)


def _from_json(file: str, position: int, line: bytes, text_column: str) -> Document:
    try:
        record = parse_json(line)
    except BadLineError as error:
        return Document(file, position, reason=error.reason, detail=error.detail)
    text = record.get(text_column) if isinstance(record, dict) else None
    if not isinstance(text, str):
        return Document(file, position, reason="no_text", detail=f"no string {text_column!r}")
    return Document(file, position, text)


def _from_bytes(file: str, position: int, content: bytes) -> Document:
    try:
        return Document(file, position, content.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        detail = f"{error.reason} at byte {error.start}"
        return Document(file, position, reason="bad_utf8", detail=detail)
