"""Dividing sources into work units that any process can do independently, in a fixed order.

A work unit is about 16 MiB of input. Its number depends on the sources only, so that build shards,
workers and restarts agree on it. Plain JSON lines are divided by byte range, tables by row group;
compressed and separated text, which cannot be entered in the middle, is one unit per file, or,
where the file is large, split by the planning process.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.errors import DataError
from data.recipe import DataRecipe, SourceRecipe
from data.sources.discovery import FileFormat, InputFile
from data.sources.stream_splitter import StreamFault, split_stream
from data.sources.table_files import arrow_batches, map_arrow, open_parquet

UNIT_BYTES = 1 << 24
STREAM_BYTES = 2 * UNIT_BYTES
"""Compressed or separated files up to this size are read by one worker."""

JSON_ESCAPE_BYTES = 6
r"""Bytes of `\u000a`, the longest way to write one byte of text."""

BuildShard = tuple[int, int]
"""(i, n): the i-th of n parts of a build's work units, from 1."""


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """A unit of work; `format`, `separator` and `payload` decide how its documents are read."""

    source: int
    """Index of the source in the recipe."""
    file: int
    """Number of the (first) file among all files of the recipe."""
    block: int
    """Number of the unit within the file."""
    format: FileFormat
    paths: tuple[Path, ...]
    start: int = 0
    """First byte (json), row group (parquet) or record batch (arrow)."""
    end: int = 0
    """One past the last."""
    first_row: int = 0
    """Row of the table at which the unit starts."""
    compression: str | None = None
    separator: bytes | None = None
    """Set for a file that is read as one stream: what ends a document (empty: the file does)."""
    payload: tuple[bytes, ...] | None = field(default=None, repr=False)
    """Documents split off a large stream."""
    positions: tuple[int, ...] = ()
    """Byte offset of each document of `payload`."""
    faults: tuple[StreamFault, ...] = ()
    """What the planning process could not read."""
    num_bytes: int
    """Input bytes this unit accounts for, for progress."""

    @property
    def name(self) -> str:
        """Name of the unit's output; names sort in document order."""
        return f"{self.source:04d}-{self.file:08d}-{self.block:08d}"


def max_raw_bytes(file_format: FileFormat, max_document_bytes: int) -> int:
    """Return the size from which a document is not even parsed: escapes are no part of its text."""
    return max_document_bytes * (JSON_ESCAPE_BYTES if file_format == "json" else 1)


def plan_units(
    recipe: DataRecipe, files: list[InputFile], shard: BuildShard = (1, 1)
) -> Iterator[WorkUnit]:
    """Yield the units of one build shard in document order; small one-document files share a unit.

    Raises:
        DataError: A table has lost its source's text column since `check_tables`.
    """
    group: list[tuple[int, InputFile]] = []
    for number, file in enumerate(files):
        source = recipe.source[file.source]
        is_document = (
            file.format == "text" and source.separator is None and file.compression is None
        )
        if group and (not is_document or not _fits(group, file)):
            yield from _of_shard(_group_unit(group), shard)
            group = []
        if is_document:
            group.append((number, file))
        elif file.format in ("parquet", "arrow"):
            yield from _of_shard(_table_units(number, file, source.text_column), shard)
        elif file.format == "json" and file.compression is None:
            yield from _of_shard(_line_units(number, file), shard)
        elif number % shard[1] == shard[0] - 1:  # only its own shard splits a stream
            yield from _stream_units(number, file, source, recipe.max_document_mib << 20)
    if group:
        yield from _of_shard(_group_unit(group), shard)


def _of_shard(units: Iterator[WorkUnit], shard: BuildShard) -> Iterator[WorkUnit]:
    index, count = shard
    return (unit for unit in units if (unit.file + unit.block) % count == index - 1)


def _fits(group: list[tuple[int, InputFile]], file: InputFile) -> bool:
    same = group[0][1].source == file.source
    return same and sum(f.num_bytes for _, f in group) + file.num_bytes <= UNIT_BYTES


def _group_unit(group: list[tuple[int, InputFile]]) -> Iterator[WorkUnit]:
    number, first = group[0]
    yield WorkUnit(
        source=first.source,
        file=number,
        block=0,
        format="text",
        paths=tuple(file.path for _, file in group),
        num_bytes=sum(file.num_bytes for _, file in group),
    )


def _common(number: int, file: InputFile) -> dict[str, Any]:
    return {"source": file.source, "file": number, "format": file.format, "paths": (file.path,)}


def _line_units(number: int, file: InputFile) -> Iterator[WorkUnit]:
    for block, start in enumerate(range(0, max(file.num_bytes, 1), UNIT_BYTES)):
        end = min(start + UNIT_BYTES, file.num_bytes)
        yield WorkUnit(
            block=block, start=start, end=end, num_bytes=end - start, **_common(number, file)
        )


def _stream_units(
    number: int, file: InputFile, source: SourceRecipe, max_document_bytes: int
) -> Iterator[WorkUnit]:
    separator = b"\n" if file.format == "json" else (source.separator or "").encode()
    stream = {"compression": file.compression, "separator": separator, **_common(number, file)}
    if file.num_bytes <= STREAM_BYTES:
        yield WorkUnit(block=0, num_bytes=file.num_bytes, **stream)
        return
    block = 0
    try:
        for chunk in split_stream(
            file.path,
            file.compression,
            separator,
            UNIT_BYTES,
            max_raw_bytes(file.format, max_document_bytes),
        ):
            yield WorkUnit(
                block=block,
                payload=chunk.documents,
                positions=chunk.positions,
                faults=chunk.faults,
                num_bytes=chunk.num_bytes,
                **stream,
            )
            block += 1
    except OSError as error:
        fault = StreamFault(0, "unreadable", error.strerror or str(error))
        yield WorkUnit(block=block, payload=(), faults=(fault,), num_bytes=file.num_bytes, **stream)


def _table_units(number: int, file: InputFile, column: str) -> Iterator[WorkUnit]:
    common = _common(number, file)
    try:
        schema, sizes = _table_layout(file)
    except (OSError, pa.ArrowException) as error:
        fault = StreamFault(0, "unreadable", " ".join(str(error).split()))
        yield WorkUnit(block=0, payload=(), faults=(fault,), num_bytes=file.num_bytes, **common)
        return
    _check_column(file, schema, column)
    total = max(sum(size for size, _ in sizes), 1)
    start = block = first_row = filled = rows = 0
    for index, (size, num_rows) in enumerate(sizes):
        filled, rows = filled + size, rows + num_rows
        if filled >= UNIT_BYTES or index == len(sizes) - 1:
            yield WorkUnit(
                block=block,
                start=start,
                end=index + 1,
                first_row=first_row,
                num_bytes=file.num_bytes * filled // total,
                **common,
            )
            start, block, first_row = index + 1, block + 1, first_row + rows
            filled = rows = 0


def check_tables(recipe: DataRecipe, files: list[InputFile]) -> None:
    """Look at the schema of every table, before any work is done.

    Raises:
        DataError: One lacks its source's text column.
    """
    for file in files:
        if file.format in ("parquet", "arrow"):
            try:
                schema = _table_schema(file)
            except (OSError, pa.ArrowException):
                continue  # counted, and named, when its turn comes
            _check_column(file, schema, recipe.source[file.source].text_column)


def _table_schema(file: InputFile) -> pa.Schema:
    if file.format == "parquet":
        with open_parquet(file.path) as table:
            return table.schema_arrow
    with map_arrow(file.path) as mapped:
        return arrow_batches(mapped)[0]


def _check_column(file: InputFile, schema: pa.Schema, column: str) -> None:
    if column not in schema.names:
        raise DataError(
            f"{file.path}: no column {column!r}; it has {', '.join(schema.names)}: choose one with"
            " --text-column"
        )
    if schema.names.count(column) > 1:
        raise DataError(f"{file.path}: two columns are named {column!r}: rename one")
    if not _is_text(schema.field(column).type):
        raise DataError(f"{file.path}: column {column!r} is {schema.field(column).type}, not text")


def _table_layout(file: InputFile) -> tuple[pa.Schema, list[tuple[int, int]]]:
    """Return the schema, and bytes and rows of each row group or record batch."""
    if file.format == "parquet":
        with open_parquet(file.path) as table:
            groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
            return table.schema_arrow, [(g.total_byte_size, g.num_rows) for g in groups]
    with map_arrow(file.path) as mapped:
        schema, batches = arrow_batches(mapped)
        return schema, [(batch.nbytes, batch.num_rows) for batch in batches]


def _is_text(dtype: pa.DataType) -> bool:
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return bool(
        pa.types.is_string(dtype)
        or pa.types.is_large_string(dtype)
        or pa.types.is_string_view(dtype)
    )
