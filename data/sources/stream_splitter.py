"""Cutting a byte stream into whole documents, in bounded memory, however broken it is."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

READ_BYTES = 1 << 20
INFLATED_BYTES = 1 << 16
"""Where a compressed stream breaks off, less than this of what was whole is lost."""
OBJECT_BYTES = 64
"""About what Python needs to hold a document, however short."""


class StreamFault(NamedTuple):
    """What could not be handed on as a document, and why."""

    position: int
    """Offset in the (decompressed) stream, bytes."""
    reason: str
    detail: str


@dataclass(frozen=True)
class StreamChunk:
    """Whole documents that follow one another in a stream."""

    documents: tuple[bytes, ...]
    positions: tuple[int, ...]
    """Offset of each document in the (decompressed) stream, bytes."""
    faults: tuple[StreamFault, ...]
    num_bytes: int
    """Bytes of the file this piece accounts for."""


@dataclass
class _Gathered:
    documents: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    faults: list[StreamFault] = field(default_factory=list)
    num_bytes: int = 0

    def piece(self, file_bytes: int) -> StreamChunk:
        piece = StreamChunk(
            tuple(self.documents), tuple(self.positions), tuple(self.faults), file_bytes
        )
        self.documents, self.positions, self.faults, self.num_bytes = [], [], [], 0
        return piece


def split_stream(
    path: Path,
    compression: str | None,
    separator: bytes,
    piece_bytes: int,
    max_document_bytes: int,
) -> Iterator[StreamChunk]:
    """Yield the documents of a file in pieces of about `piece_bytes`.

    Documents are cut at `separator` (empty: the whole stream is one). One that is longer than
    `max_document_bytes` becomes a `too_large` fault and is read past without being held; where
    the stream breaks off, what was whole is kept and the break becomes a `truncated` fault.
    """
    gathered = _Gathered()
    counted = 0
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        documents = _documents(_chunks(file, compression), separator, max_document_bytes)
        for found in documents:
            if isinstance(found, StreamFault):
                gathered.faults.append(found)
            else:
                position, document = found
                gathered.documents.append(document)
                gathered.positions.append(position)
                gathered.num_bytes += len(document) + OBJECT_BYTES
            if gathered.num_bytes >= piece_bytes:
                read = min(file.tell(), file_bytes)
                yield gathered.piece(read - counted)
                counted = read
    yield gathered.piece(file_bytes - counted)


def _chunks(file: BinaryIO, compression: str | None) -> Iterator[bytes | str]:
    """Yield the stream's bytes; a break in it ends them with its description (a str)."""
    try:
        if compression is None:
            while chunk := file.read(READ_BYTES):
                yield chunk
            return
        stream = pa.CompressedInputStream(pa.PythonFile(file), compression)
        while chunk := stream.read(INFLATED_BYTES):
            yield chunk
    except (OSError, pa.ArrowException) as error:
        yield " ".join(str(error).split())


def _documents(
    chunks: Iterator[bytes | str], separator: bytes, max_document_bytes: int
) -> Iterator[tuple[int, bytes] | StreamFault]:
    """Yield (offset, document), or a fault, in order."""
    buffer = bytearray()
    start = 0
    dropped = 0
    broken = None
    for chunk in chunks:
        if isinstance(chunk, str):
            broken = chunk
            break
        searched = max(len(buffer) - len(separator) + 1, 0)
        buffer += chunk
        begin = 0
        while separator and (end := buffer.find(separator, searched)) >= 0:
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
    elif buffer:
        yield start, bytes(buffer)
