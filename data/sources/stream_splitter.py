"""Splitting a byte stream into complete documents, in bounded memory, however damaged it is."""

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

READ_BYTES = 1 << 20
INFLATED_BYTES = 1 << 16
"""Where a compressed stream breaks off, less than this of the intact data is lost."""
OBJECT_BYTES = 64
"""Approximate overhead of a document in Python's memory, however short it is."""


class StreamFault(NamedTuple):
    """Part of a stream that is no readable document, and why."""

    position: int
    """Offset in the (decompressed) stream, bytes."""
    reason: str
    detail: str


@dataclass(frozen=True)
class StreamChunk:
    """Consecutive documents of a stream."""

    documents: tuple[bytes, ...]
    positions: tuple[int, ...]
    """Offset of each document in the (decompressed) stream, bytes."""
    faults: tuple[StreamFault, ...]
    num_bytes: int
    """Bytes of the file this chunk accounts for."""


@dataclass
class _ChunkBuffer:
    documents: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    faults: list[StreamFault] = field(default_factory=list)
    num_bytes: int = 0

    def pop(self, file_bytes: int) -> StreamChunk:
        """Return the chunk gathered so far and begin the next."""
        chunk = StreamChunk(
            tuple(self.documents), tuple(self.positions), tuple(self.faults), file_bytes
        )
        self.documents, self.positions, self.faults, self.num_bytes = [], [], [], 0
        return chunk


def split_stream(
    path: Path,
    compression: str | None,
    separator: bytes,
    chunk_bytes: int,
    max_document_bytes: int,
) -> Iterator[StreamChunk]:
    """Yield the documents of a file in chunks of about `chunk_bytes`.

    Documents end at `separator` (empty: the complete stream is one document). White space alone
    between two of them is none: a small archive may hold millions. A document longer than
    `max_document_bytes` becomes a `too_large` fault and is never held in memory; where the stream
    breaks off, complete documents are kept and the break becomes a `truncated` fault.
    """
    buffer = _ChunkBuffer()
    counted = 0
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        stream = _decompressed(file, compression)
        documents = _documents(stream, separator, max_document_bytes)
        for item in documents:
            if isinstance(item, StreamFault):
                buffer.faults.append(item)
            else:
                position, document = item
                buffer.documents.append(document)
                buffer.positions.append(position)
                buffer.num_bytes += len(document) + OBJECT_BYTES
            if buffer.num_bytes >= chunk_bytes:
                read = min(file.tell(), file_bytes)
                yield buffer.pop(read - counted)
                counted = read
    yield buffer.pop(file_bytes - counted)


def _decompressed(file: BinaryIO, compression: str | None) -> Iterator[bytes | str]:
    """Yield the decompressed bytes; a read error ends them with its description (a str)."""
    try:
        if compression is None:
            while data := file.read(READ_BYTES):
                yield data
            return
        if compression == "gzip":  # Arrow's reader takes zeros behind the end, of tapes, for damage
            read = gzip.GzipFile(fileobj=file).read1
        else:
            read = pa.CompressedInputStream(pa.PythonFile(file), compression).read
        while data := read(INFLATED_BYTES):
            yield data
    except EOFError as error:
        yield f"truncated: {error}"
    except (OSError, zlib.error, pa.ArrowException) as error:
        yield " ".join(str(error).split())


def _documents(
    stream: Iterator[bytes | str], separator: bytes, max_document_bytes: int
) -> Iterator[tuple[int, bytes] | StreamFault]:
    """Yield (offset, document), or a fault, in order."""
    # Lazy: each piece ends at the first separator, as where pieces are split one by one.
    blanks = re.compile(rb"(?:\s*?" + re.escape(separator) + rb")+")
    buffer = bytearray()
    start = 0
    dropped = 0
    broken = None
    for data in stream:
        if isinstance(data, str):
            broken = data
            break
        searched = max(len(buffer) - len(separator) + 1, 0)
        buffer += data
        begin = 0
        while separator and (end := buffer.find(separator, searched)) >= 0:
            if not dropped and not buffer[begin:end].strip():
                blank = blanks.match(buffer, begin)
                assert blank is not None
                start += blank.end() - begin
                begin = searched = blank.end()
                continue
            num_bytes = dropped + end - begin
            if num_bytes > max_document_bytes:
                yield StreamFault(start, "too_large", f"{num_bytes} bytes")
            else:
                yield start, bytes(buffer[begin:end])
            start += num_bytes + len(separator)
            dropped = 0
            begin = searched = end + len(separator)
        del buffer[:begin]
        if len(buffer) > max_document_bytes:
            surplus = len(buffer) - len(separator)
            dropped += surplus
            del buffer[:surplus]
    if broken is not None:
        yield StreamFault(start, "truncated" if "runcated" in broken else "unreadable", broken)
    elif dropped + len(buffer) > max_document_bytes:
        yield StreamFault(start, "too_large", f"{dropped + len(buffer)} bytes")
    elif buffer and (not separator or buffer.strip()):
        yield start, bytes(buffer)
