"""Sizes of a Parquet column's pages, from their headers alone: what decoding will take.

A page is decompressed whole, and a dictionary or shared prefixes (DELTA_BYTE_ARRAY) let a few bytes
stand for many rows, so a small file can ask for any amount of memory. Headers are Thrift structs in
the compact protocol (parquet-format, `PageHeader`), which pyarrow does not show.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER_BYTES = (1 << 9, 1 << 16, 1 << 22)
"""Read of a header, until it is complete: statistics in it may be long."""
DICTIONARY_PAGE = 2
_MAX_NESTING = 8
_BOOLEANS, _BYTE, _VARINTS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (
    *((1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12),
)


@dataclass(frozen=True)
class PageSizes:
    """The largest pages of one column chunk, bytes when decompressed."""

    data: int = 0
    dictionary: int = 0


def page_sizes(path: Path, column_chunk: Any) -> PageSizes:
    """Return the largest page sizes of a column chunk (pyarrow's `ColumnChunkMetaData`).

    Raises:
        ValueError: A header is damaged, or says more bytes than the file has.
        OSError: The file cannot be read.
    """
    start = column_chunk.data_page_offset
    if column_chunk.has_dictionary_page:
        start = min(start, column_chunk.dictionary_page_offset or start)
    end = start + column_chunk.total_compressed_size
    largest = {True: 0, False: 0}
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if start < 0 or end > os.fstat(descriptor).st_size:
            raise ValueError("a column chunk that ends after its file")
        while start < end:
            fields, length = _read_header(descriptor, start)
            kind, size, stored = (fields.get(number, -1) for number in (1, 2, 3))
            if size < 0 or stored < 0:
                raise ValueError("a damaged page header")
            is_dictionary = kind == DICTIONARY_PAGE
            largest[is_dictionary] = max(largest[is_dictionary], size)
            start += length + stored
    finally:
        os.close(descriptor)
    return PageSizes(data=largest[False], dictionary=largest[True])


def _read_header(descriptor: int, offset: int) -> tuple[dict[int, int], int]:
    for num_bytes in HEADER_BYTES:
        reader = _CompactReader(os.pread(descriptor, num_bytes, offset))
        try:
            return reader.integers(), reader.position
        except (IndexError, struct.error):  # cut off
            continue
    raise ValueError("a damaged page header")


class _CompactReader:
    """Reads one struct of Thrift's compact protocol; IndexError where the bytes end."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.position = 0

    def integers(self, nesting: int = 0) -> dict[int, int]:
        """Return the integer fields of the struct by number; others are skipped."""
        if nesting > _MAX_NESTING:
            raise ValueError("a damaged page header")
        fields: dict[int, int] = {}
        number = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else _signed(self._varint())
            if kind in _VARINTS:
                fields[number] = _signed(self._varint())
            else:
                self._skip(kind, nesting, is_field=True)
        return fields

    def _skip(self, kind: int, nesting: int, *, is_field: bool = False) -> None:
        if kind in _BOOLEANS:
            self.position += not is_field  # a field's value is in its head
        elif kind == _BYTE:
            self.position += 1
        elif kind in _VARINTS:
            self._varint()
        elif kind == _DOUBLE:
            self.position += 8
        elif kind == _BINARY:
            length = self._varint()  # which moves the position itself
            self.position += length
        elif kind in _LISTS:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            self._skip_all([head & 15] * min(count, len(self._content)), nesting)
        elif kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            self._skip_all([kinds >> 4, kinds & 15] * min(count, len(self._content)), nesting)
        elif kind == _STRUCT:
            self.integers(nesting + 1)
        else:
            raise ValueError("a damaged page header")

    def _skip_all(self, kinds: list[int], nesting: int) -> None:
        if nesting > _MAX_NESTING:
            raise ValueError("a damaged page header")
        for kind in kinds:
            self._skip(kind, nesting + 1)

    def _byte(self) -> int:
        value = self._content[self.position]
        self.position += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return value


def _signed(zigzag: int) -> int:
    return (zigzag >> 1) ^ -(zigzag & 1)
