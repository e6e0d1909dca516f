"""Opening Parquet and Arrow files, whatever bytes their names are made of."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.sources.stream_splitter import READ_BYTES


@contextmanager
def open_parquet(path: Path, **options: Any) -> Iterator[Any]:
    """Open a Parquet file; `options` as of `pq.ParquetFile`."""
    # Unbuffered, a reader would hold complete column chunks, however large.
    options = {"buffer_size": READ_BYTES, "pre_buffer": False, **options}
    with pa.OSFile(os.fsencode(path)) as file, pq.ParquetFile(file, **options) as table:
        yield table


def map_arrow(path: Path) -> Any:
    """Map an Arrow file into memory."""
    return pa.memory_map(os.fsencode(path))


def arrow_batches(mapped: Any, start: int = 0, end: int | None = None) -> tuple[Any, Iterator[Any]]:
    """Return the schema and record batches [start, end) of an Arrow file of either IPC format."""
    try:
        reader = pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
        mapped.seek(0)
        stream = pa.ipc.open_stream(mapped)
        return stream.schema, islice(stream, start, end)
    last = reader.num_record_batches if end is None else end
    return reader.schema, (reader.get_batch(i) for i in range(start, last))
