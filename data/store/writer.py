"""Writing a token store's streams: flat Arrow token shards and a table of documents.

A shard is an Arrow IPC file with one non-null column `tokens` (uint16, or uint32 for vocabularies
beyond 65,536) in uncompressed record batches of `batch_tokens`; its schema metadata repeats the
tokenizer's hash. Memory is one record batch per stream.
"""

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.storage.atomic import fsync
from data.storage.checksums import HashingFile
from data.store.manifest import FileInfo, StreamInfo

BATCH_TOKENS = 1 << 24
SHARD_TOKENS = 32 * BATCH_TOKENS
TABLE_BATCH_ROWS = 1 << 16
HASH_BYTES = 16
TOKENIZER_KEY = b"tokenizer_sha256"
UINT16_VOCAB = 1 << 16

DtypeName = Literal["uint16", "uint32"]
DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("end", pa.int64(), nullable=False),
        pa.field("hash", pa.binary(HASH_BYTES), nullable=False),
    ]
)
LANGUAGE = pa.field("language", pa.string())
"""ISO 639-1 code; a further column of the table of documents where languages were identified."""


@dataclass(frozen=True, kw_only=True)
class StreamFormat:
    """How token shards and the table of documents are written."""

    dtype: DtypeName
    tokenizer_sha256: str
    batch_tokens: int = BATCH_TOKENS
    shard_tokens: int = SHARD_TOKENS
    has_language: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of a token shard."""
        field = pa.field("tokens", pa.type_for_alias(self.dtype), nullable=False)
        return pa.schema([field], metadata={TOKENIZER_KEY: self.tokenizer_sha256})

    @property
    def document_schema(self) -> pa.Schema:
        """Arrow schema of the table of documents."""
        return DOCUMENT_SCHEMA.append(LANGUAGE) if self.has_language else DOCUMENT_SCHEMA


def dtype_for(vocab_size: int) -> DtypeName:
    """Return the smallest token type that holds every id."""
    return "uint16" if vocab_size <= UINT16_VOCAB else "uint32"


def is_held_out(content_hash: bytes, held_out_fraction: float) -> bool:
    """Assign a document to a split by its hash: a growing corpus keeps its held-out documents."""
    return int.from_bytes(content_hash[:8], "big") < held_out_fraction * 2**64


class ArrowFileWriter:
    """Writes an Arrow IPC file batch by batch and hashes it."""

    def __init__(self, root: Path, name: str, schema: pa.Schema) -> None:
        self._name = name
        self._path = root / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = self._path.open("wb")
        weakref.finalize(self, self._file.close)  # where it is never completed
        self._hashing = HashingFile(self._file)
        self._schema = schema
        self._writer = pa.ipc.new_file(self._hashing, schema)
        self.rows = 0

    def write(self, *columns: Any) -> None:
        """Write one record batch from arrays in the schema's order."""
        batch = pa.record_batch(list(columns), schema=self._schema)
        self._writer.write_batch(batch)
        self.rows += batch.num_rows

    def close(self) -> FileInfo:
        """Complete the file on disk; returns its entry in the manifest."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        fsync(self._path.parent)
        return FileInfo(
            file=self._name,
            rows=self.rows,
            num_bytes=self._hashing.num_bytes,
            sha256=self._hashing.sha256,
        )


class StreamWriter:
    """Writes the concatenated documents of one source and split, in bounded memory."""

    def __init__(self, root: Path, prefix: str, stream_format: StreamFormat) -> None:
        """Start a stream whose files are `<root>/<prefix>-*.arrow`."""
        self._root, self._prefix, self._format = root, prefix, stream_format
        self._buffer = np.empty(stream_format.batch_tokens, dtype=stream_format.dtype)
        self._filled = 0
        self._shard: ArrowFileWriter | None = None
        self._shards: list[FileInfo] = []
        self._table = ArrowFileWriter(
            root, f"{prefix}-documents.arrow", stream_format.document_schema
        )
        self._ends: list[int] = []
        self._hashes: list[bytes] = []
        self._languages: list[str | None] = []
        self._tokens = 0

    def append(
        self, tokens: NDArray[Any], content_hash: bytes, language: str | None = None
    ) -> None:
        """Append one document, its end-of-document token included."""
        remaining = tokens
        while remaining.size:
            head = remaining[: self._buffer.size - self._filled]
            self._buffer[self._filled : self._filled + head.size] = head
            self._filled += head.size
            remaining = remaining[head.size :]
            if self._filled == self._buffer.size:
                self._flush_tokens()
        self._tokens += tokens.size
        self._ends.append(self._tokens)
        self._hashes.append(content_hash)
        self._languages.append(language)
        if len(self._ends) == TABLE_BATCH_ROWS:
            self._flush_table()

    def close(self) -> StreamInfo:
        """Complete every file of the stream; returns its entry in the manifest."""
        if self._filled:
            self._flush_tokens()
        if self._ends:
            self._flush_table()
        self._close_shard()
        table = self._table.close()
        return StreamInfo(
            tokens=self._tokens,
            documents=table.rows,
            shards=tuple(self._shards),
            document_table=table,
        )

    def _flush_tokens(self) -> None:
        if self._shard is None:
            name = f"{self._prefix}-{len(self._shards):05d}.arrow"
            self._shard = ArrowFileWriter(self._root, name, self._format.schema)
        self._shard.write(pa.array(self._buffer[: self._filled]))
        self._filled = 0
        if self._shard.rows == self._format.shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shards.append(self._shard.close())
            self._shard = None

    def _flush_table(self) -> None:
        hashes = pa.array(self._hashes, type=pa.binary(HASH_BYTES))
        languages = [pa.array(self._languages, LANGUAGE.type)] * self._format.has_language
        self._table.write(pa.array(self._ends, type=pa.int64()), hashes, *languages)
        self._ends, self._hashes, self._languages = [], [], []
