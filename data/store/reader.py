"""Reading a token store: memory-mapped, zero-copy, checked when it is opened.

Plain pyarrow reads it as well: `pa.ipc.open_file(pa.memory_map(shard)).read_all()["tokens"]`.
"""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.described_files import DescribedFiles, file_inside
from data.errors import DataError
from data.storage.checksums import file_sha256
from data.store.manifest import (
    MANIFEST_FILE,
    FileInfo,
    Manifest,
    SplitName,
    StreamInfo,
    manifest_is_intact,
)
from data.store.writer import LANGUAGE, TOKENIZER_KEY
from data.tokenization.info import TOKENIZER_FILE
from data.tokenization.tokenizer import Tokenizer


class TokenStream:
    """The concatenated documents of one source in one split, as one long array of tokens."""

    def __init__(self, root: Path, name: str, info: StreamInfo, manifest: Manifest) -> None:
        self.name = name
        self.num_tokens = info.tokens
        self.num_documents = info.documents
        self._root, self._info = root, info
        self._batch_tokens = manifest.batch_tokens
        self._batches_per_shard = manifest.shard_tokens // manifest.batch_tokens
        self._tokenizer_sha256 = manifest.tokenizer.sha256.encode()
        self._dtype = manifest.dtype
        self._readers: dict[int, Any] = {}
        self._batches: dict[int, NDArray[Any]] = {}
        self._opening = Lock()

    def read(self, start: int, length: int) -> NDArray[Any]:
        """Return tokens [start, start + length).

        A view of the mapped file inside one record batch, a copy across two.
        """
        index, offset = divmod(start, self._batch_tokens)
        batch = self._batches.get(index)
        if batch is None:
            batch = self._open_batch(index)
        view = batch[offset : offset + length]
        if view.size == length:
            return view
        if start < 0 or start + length > self.num_tokens:
            raise IndexError(f"{self.name}: {start}+{length} is outside {self.num_tokens} tokens")
        return np.concatenate([view, self.read(start + view.size, length - view.size)])

    @property
    def table_sha256(self) -> str:
        """Hash of the table of documents."""
        return self._info.document_table.sha256

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """End of each document (exclusive token position), in order; int64 [num_documents]."""
        path = self._root / self._info.document_table.file
        ends = _column(path, "end")
        last = int(ends[-1]) if ends.size else 0
        if ends.size != self.num_documents or last != self.num_tokens or (np.diff(ends) < 0).any():
            raise DataError(f"{path}: damaged: not the ends of its tokens: run `moe data verify`")
        return ends

    @property
    def languages(self) -> list[str | None] | None:
        """ISO 639-1 code of each document (None: a canary); None where none were identified."""
        table = open_arrow(self._root / self._info.document_table.file).read_all()
        if LANGUAGE.name not in table.column_names:
            return None
        languages: list[str | None] = table[LANGUAGE.name].to_pylist()
        return languages

    @cached_property
    def answers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and one past the last token of each answer, in order; none in a text store."""
        if self._info.answers is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        path = self._root / self._info.answers.file
        return _column(path, "start"), _column(path, "end")

    def document_windows(self, size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield starts and ends of `size` documents at a time, int64 each, in bounded memory."""
        start = 0
        for ends in _column_windows(self._root / self._info.document_table.file, "end", size):
            yield np.concatenate([[start], ends[:-1]]), ends
            start = int(ends[-1])

    def _open_batch(self, index: int) -> NDArray[Any]:
        shard, batch = divmod(index, self._batches_per_shard)
        if shard >= len(self._info.shards):
            raise IndexError(f"{self.name}: past its {self.num_tokens} tokens")
        with self._opening:
            if shard not in self._readers:
                self._readers[shard] = self._open_shard(self._root / self._info.shards[shard].file)
            self._batches[index] = self._checked_batch(shard, batch, index)
        return self._batches[index]

    def _checked_batch(self, shard: int, batch: int, index: int) -> NDArray[Any]:
        path = self._root / self._info.shards[shard].file
        try:
            tokens = arrow_view(self._readers[shard].get_batch(batch).column(0))
        except (OSError, ValueError) as error:  # Arrow's own are among them
            raise DataError(f"{path}: damaged ({error}): run `moe data verify`") from None
        expected = min(self._batch_tokens, self.num_tokens - index * self._batch_tokens)
        if tokens.size != expected:
            raise DataError(
                f"{path}: record batch {batch} has {tokens.size} tokens, not {expected}: run"
                " `moe data verify`"
            )
        return tokens

    def _open_shard(self, path: Path) -> Any:
        reader = open_arrow(path)
        schema = reader.schema
        if (schema.metadata or {}).get(TOKENIZER_KEY) != self._tokenizer_sha256:
            raise DataError(f"{path}: tokenized with another tokenizer than the store's manifest")
        if schema.names != ["tokens"] or str(schema.field(0).type) != self._dtype:
            raise DataError(f"{path}: not a token shard of type {self._dtype}")
        return reader


class Split:
    """One split (`train` or `held_out`) of a store: one stream per source."""

    def __init__(self, name: SplitName, streams: tuple[TokenStream, ...]) -> None:
        self.name = name
        self.streams = streams

    @property
    def num_tokens(self) -> int:
        """Tokens of all sources."""
        return sum(stream.num_tokens for stream in self.streams)

    @property
    def num_documents(self) -> int:
        """Documents of all sources."""
        return sum(stream.num_documents for stream in self.streams)


class Store:
    """A token store opened for reading."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store after checking that every file exists in its full size.

        Raises:
            DataError: No store, an unfinished one, or a missing or truncated file; names it.
        """
        store = cls(path, Manifest.read(path))
        files = DescribedFiles(path)
        for info in store.manifest.files():
            _check_size(path, files, info)
        return store

    def split(self, name: SplitName) -> Split:
        """Return one split; it may hold no tokens."""
        return Split(
            name,
            tuple(
                TokenStream(self.path, source.name, source.splits[name], self.manifest)
                for source in self.manifest.sources
                if name in source.splits
            ),
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer the store was made with.

        Raises:
            DataError: `tokenizer.json` is missing or not the one the manifest names.
        """
        path = self.path / TOKENIZER_FILE
        try:
            file_inside(self.path, TOKENIZER_FILE)
        except FileNotFoundError:
            raise DataError(f"{path}: missing: restore it or build the store again") from None
        if file_sha256(path) != self.manifest.tokenizer.sha256:
            raise DataError(f"{path}: is not the tokenizer this store was made with: restore it")
        eos_token = self.manifest.tokenizer.eos_token
        return Tokenizer(path.read_text(encoding="utf-8"), str(path), eos_token)

    def verify(self) -> list[str]:
        """Read everything; returns one line for each file that differs from what was written."""
        faults = []
        if not manifest_is_intact(self.path):
            faults.append(f"{self.path / MANIFEST_FILE}: damaged: not as written, by its own hash")
        expected = [(info.file, info.sha256) for info in self.manifest.files()]
        expected.append((TOKENIZER_FILE, self.manifest.tokenizer.sha256))
        for name, sha256 in expected:
            path = self.path / name
            try:
                actual = file_sha256(file_inside(self.path, name))
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
                continue
            except DataError as error:
                faults.append(str(error))
                continue
            if actual != sha256:
                faults.append(f"{path}: damaged: SHA-256 is {actual}, written as {sha256}")
        return faults


def _check_size(root: Path, files: DescribedFiles, info: FileInfo) -> None:
    try:
        num_bytes = files.status(info.file).st_size
    except OSError as error:
        raise DataError(
            f"{root / info.file}: {error.strerror}: restore it or build the store again"
        ) from None
    if num_bytes != info.num_bytes:
        raise DataError(
            f"{root / info.file}: {num_bytes} bytes, written with {info.num_bytes}: restore it or"
            " build again"
        )


def open_arrow(path: Path) -> Any:
    """Open a memory-mapped Arrow IPC file.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(os.fsencode(path)))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not readable as Arrow: {error}: run `moe data verify`") from None


def arrow_view(array: Any) -> NDArray[Any]:
    """View an Arrow array of integers without nulls.

    `to_numpy` would do, but imports pandas where that is installed: 0.3 s and 45 MB at startup.
    """
    dtype = np.dtype(str(array.type))
    if not len(array):
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _column_windows(path: Path, name: str, size: int) -> Iterator[NDArray[Any]]:
    reader = open_arrow(path)
    pending: list[NDArray[Any]] = []
    for index in range(reader.num_record_batches):
        pending.append(arrow_view(reader.get_batch(index).column(name)))
        if sum(values.size for values in pending) >= size:
            joined = np.concatenate(pending)
            count = joined.size // size
            yield from np.split(joined[: count * size], count)
            pending = [joined[count * size :]]
    remainder = np.concatenate(pending) if pending else np.empty(0, dtype=np.int64)
    if remainder.size:
        yield remainder


def _column(path: Path, name: str) -> NDArray[Any]:
    try:
        chunks = open_arrow(path).read_all()[name].chunks
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}): run `moe data verify`") from None
    return np.concatenate([arrow_view(c) for c in chunks]) if chunks else np.zeros(0, np.int64)
