"""Reading the documents of one work unit, whatever its format; what cannot be read has a reason."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.json_text import ARRAY_REMEDY, BadLineError, decode_text, parse_json
from data.plain_text import encodable, printable
from data.sources.stream_splitter import READ_BYTES, StreamFault, split_stream
from data.sources.tables import TooLarge, text_values
from data.sources.work_units import WorkUnit, max_raw_bytes

SHOWN_KEYS = 8
BLANK_LINES = re.compile(rb"\s*\n")


@dataclass(frozen=True)
class Document:
    """One document, or the reason why there is none."""

    file: str
    """Its path, printable."""
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
            path,
            unit.compression,
            unit.separator,
            READ_BYTES,
            max_raw_bytes(unit.format, max_document_bytes),
        ):
            yield from _split_documents(
                unit, chunk.positions, chunk.documents, chunk.faults, text_column
            )
    except OSError as error:
        yield Document(printable(path), 0, reason="unreadable", detail=error.strerror)


def _split_documents(
    unit: WorkUnit,
    positions: Sequence[int],
    contents: Sequence[bytes],
    faults: Sequence[StreamFault],
    text_column: str,
) -> Iterator[Document]:
    file = printable(unit.paths[0])
    for position, content in zip(positions, contents, strict=True):
        if unit.format != "json":
            yield _from_bytes(file, position, content)
        else:
            yield _from_json(file, position, content, text_column)
    for fault in faults:
        yield Document(file, fault.position, reason=fault.reason, detail=fault.detail)


def _file_document(path: Path, max_document_bytes: int) -> Document:
    try:
        size = path.stat().st_size
        if size > max_document_bytes:
            return Document(printable(path), 0, reason="too_large", detail=f"{size} bytes")
        with path.open("rb") as file:  # sizes lie: of devices, and of files that grow
            content = file.read(max_document_bytes + 1)
        if len(content) > max_document_bytes:
            return Document(printable(path), 0, reason="too_large", detail=f"{len(content)}+ bytes")
        return _from_bytes(printable(path), 0, content)
    except OSError as error:
        return Document(printable(path), 0, reason="unreadable", detail=error.strerror)


def _json_lines(unit: WorkUnit, text_column: str, max_document_bytes: int) -> Iterator[Document]:
    path = unit.paths[0]
    try:
        with path.open("rb") as file:
            max_bytes = max_raw_bytes("json", max_document_bytes)
            for position, line, num_bytes in _lines(file, unit.start, unit.end, max_bytes):
                if line is None:
                    detail = f"{num_bytes} bytes"
                    yield Document(printable(path), position, reason="too_large", detail=detail)
                else:
                    yield _from_json(printable(path), position, line, text_column)
    except OSError as error:
        yield Document(printable(path), unit.start, reason="unreadable", detail=error.strerror)


def _lines(
    file: BufferedReader, start: int, end: int, max_bytes: int
) -> Iterator[tuple[int, bytes | None, int]]:
    """Yield (offset, line, bytes) of lines that start in [start, end); a line too long is None.

    Blank lines, which may be millions, are passed over.
    """
    if start:
        file.seek(start - 1)
        _skip_line(file)
    while (position := file.tell()) < end:
        line = file.readline(max_bytes + 1)
        num_bytes = len(line)
        if num_bytes > max_bytes and not line.endswith(b"\n"):
            num_bytes += _skip_line(file)
            yield position, None, num_bytes
        elif line.strip():
            yield position, line, num_bytes
        elif blank := BLANK_LINES.match(file.peek()):
            file.seek(position + num_bytes + blank.end())


def _skip_line(file: BufferedReader) -> int:
    skipped = 0
    while chunk := file.readline(READ_BYTES):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _table(unit: WorkUnit, text_column: str, max_document_bytes: int) -> Iterator[Document]:
    file = printable(unit.paths[0])
    row = unit.first_row
    try:
        for value in text_values(unit, text_column, max_document_bytes):
            if value is None:
                yield Document(file, row, reason="no_text", detail=f"{text_column} is null")
            elif isinstance(value, TooLarge):
                yield Document(file, row, reason="too_large", detail=value.detail)
            else:
                yield _from_bytes(file, row, value)
            row += value.rows if isinstance(value, TooLarge) else 1
    except (OSError, ValueError, pa.ArrowException) as error:
        detail = printable(" ".join(str(error).split()))
        yield Document(file, row, reason="unreadable", detail=f"{detail} (with what follows it)")


def _from_json(file: str, position: int, line: bytes, text_column: str) -> Document:
    try:
        record = parse_json(line)
    except BadLineError as error:
        is_array = error.reason == "bad_json" and line.lstrip()[:1] == b"["
        detail = f"{error.detail}; {ARRAY_REMEDY}" if is_array else error.detail
        return Document(file, position, reason=error.reason, detail=detail)
    if not isinstance(record, dict):
        remedy = f"; {ARRAY_REMEDY}" if isinstance(record, list) else ""
        detail = f"a {type(record).__name__}, not an object{remedy}"
        return Document(file, position, reason="bad_json", detail=detail)
    text = record.get(text_column)
    if not isinstance(text, str):
        detail = f"no string {text_column!r}; {_description(record)}"
        return Document(file, position, reason="no_text", detail=detail)
    return Document(file, position, text)


def _description(record: dict[str, Any]) -> str:
    """Describe a record without text, so that its reader can tell what to change."""
    keys = ", ".join(list(record)[:SHOWN_KEYS]) + ", ..." * (len(record) > SHOWN_KEYS)
    return encodable(f"it has {keys[:200]}" if keys else "it is empty")


def _from_bytes(file: str, position: int, content: bytes) -> Document:
    try:
        return Document(file, position, decode_text(content))
    except BadLineError as error:
        return Document(file, position, reason=error.reason, detail=error.detail)
