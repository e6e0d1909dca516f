"""The text column of Parquet and Arrow files, value by value, in bounded memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data.sources.parquet_pages import PageSizes, page_sizes
from data.sources.table_files import arrow_batches, map_arrow, open_parquet
from data.sources.work_units import WorkUnit

BATCH_ROWS = 256
PAGE_DOCUMENTS = 20
"""A Parquet page, which is decoded whole, may be as large as so many of the largest documents."""
MAX_EXPANDED_BYTES = 1 << 24
"""Largest batch into which the values of a dictionary are copied; else they stay in it."""


class TooLarge(NamedTuple):
    """What is there instead of a value, and of how many rows."""

    detail: str
    rows: int = 1


def text_values(
    unit: WorkUnit, column: str, max_document_bytes: int
) -> Iterator[bytes | TooLarge | None]:
    """Yield the bytes of each row of a unit's column; None for null.

    Raises:
        OSError, pa.ArrowException, ValueError: The rest of the file cannot be read.
    """
    arrays = _parquet_columns if unit.format == "parquet" else _arrow_columns
    for array in arrays(unit, column, max_document_bytes):
        if isinstance(array, TooLarge):
            yield array
            continue
        for first in range(0, len(array), BATCH_ROWS):
            yield from _rows(array.slice(first, BATCH_ROWS), max_document_bytes)


def _arrow_columns(unit: WorkUnit, column: str, _: int) -> Iterator[Any]:
    with map_arrow(unit.paths[0]) as mapped:
        for batch in arrow_batches(mapped, unit.start, unit.end)[1]:
            yield batch.column(column)


def _parquet_columns(unit: WorkUnit, column: str, max_document_bytes: int) -> Iterator[Any]:
    path = unit.paths[0]
    max_page_bytes = PAGE_DOCUMENTS * max_document_bytes
    with open_parquet(path) as plain, open_parquet(path, read_dictionary=[column]) as encoded:
        for index in range(unit.start, unit.end):
            group = plain.metadata.row_group(index)
            if not group.num_rows:  # writers leave some: without a page, and with offsets of 0
                continue
            pages = _pages_of(path, group, column)
            largest = max(pages.data, pages.dictionary)
            if largest > max_page_bytes:
                detail = f"row group {index}, {group.num_rows:,} rows: a page of {largest:,} bytes;"
                detail += f" at most {max_page_bytes:,}, {PAGE_DOCUMENTS} times max_document_mib"
                yield TooLarge(detail, group.num_rows)
                continue
            # A row is no larger than the page or the dictionary entry that it is in.
            rows = min(max(max_page_bytes // max(pages.data, 1), 1), BATCH_ROWS)
            table = encoded if pages.dictionary * rows > MAX_EXPANDED_BYTES else plain
            for batch in table.iter_batches(rows, row_groups=[index], columns=[column]):
                yield batch.column(0)


def _pages_of(path: Path, group: Any, column: str) -> PageSizes:
    chunks = (group.column(number) for number in range(group.num_columns))
    chunk = next((chunk for chunk in chunks if chunk.path_in_schema == column), None)
    return PageSizes() if chunk is None else page_sizes(path, chunk)


def _rows(array: Any, max_bytes: int) -> Iterator[bytes | TooLarge | None]:
    """Yield the bytes of each row that is not longer than `max_bytes`, one at a time."""
    indices = None
    if pa.types.is_dictionary(array.type):
        indices, array = array.indices, array.dictionary
    values = _as_binary(array)
    lengths = pc.binary_length(values)
    for index in range(len(values)) if indices is None else indices.to_pylist():
        length = None if index is None else lengths[index].as_py()
        if length is not None and length > max_bytes:
            yield TooLarge(f"{length} bytes")
        else:
            yield None if length is None else values[index].as_py()


def _as_binary(array: Any) -> Any:
    """View strings as bytes: Arrow does not guarantee that those of a file are UTF-8."""
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    is_large = pa.types.is_large_string(array.type)
    return array.view(pa.large_binary() if is_large else pa.binary())
