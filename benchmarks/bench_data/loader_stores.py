"""Token stores for the loader's benchmarks: synthetic text, and a corpus of any size."""

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from data.store.builder import StoreBuilder
from data.store.manifest import TRAIN, FileInfo, StreamInfo
from data.store.megatron_indexed import export_indexed
from data.store.reader import Store, TokenStream
from data.store.writer import BATCH_TOKENS, HASH_BYTES, SHARD_TOKENS, StreamWriter
from data.tokenization.tokenizer import byte_tokenizer

DOCUMENT_TOKENS = 900
"""Mean length of a synthetic document; lengths are log-normal, as web text's."""


@dataclass(frozen=True)
class Corpus:
    """The same tokens for every reader: as a store, and as one flat file."""

    store: Path
    folder: Path
    """Holds peers' files; `tokens.bin` and `tokens.idx` are Megatron's."""
    seq_len: int

    @classmethod
    def of(cls, store: Path, folder: Path, seq_len: int) -> "Corpus":
        """Write the store's training split as flat tokens into `folder`."""
        export_indexed(Store.open(store), TRAIN, folder / "tokens")
        return cls(store, folder, seq_len)

    @property
    def stream(self) -> TokenStream:
        """The store's first source, newly opened."""
        streams = Store.open(self.store).split(TRAIN).streams
        return next(stream for stream in streams if stream.num_tokens)

    @cached_property
    def tokens(self) -> Any:
        """The same tokens in a flat file, as numpy maps it (`np.memmap`)."""
        wide = Store.open(self.store).manifest.dtype == "uint32"
        flat = np.memmap(self.folder / "tokens.bin", dtype="i4" if wide else "u2", mode="r")
        return flat[: self.stream.num_tokens]

    @property
    def num_windows(self) -> int:
        """Sequences of S + 1 tokens, each beginning with the last token of the one before."""
        return int(self.tokens.size - 1) // self.seq_len


def synthetic_store(path: Path, num_tokens: int) -> None:
    """Write a store of random bytes as tokens, with at least `num_tokens` tokens."""
    rng = np.random.default_rng(0)
    path.mkdir(parents=True)
    tokenizer = byte_tokenizer()
    builder = StoreBuilder(path, tokenizer)
    writer = StreamWriter(path, "synthetic/train", builder.format)
    written = number = 0
    while written < num_tokens:
        length = 2 + int(rng.lognormal(np.log(DOCUMENT_TOKENS) - 0.5, 1.0))
        document = rng.integers(0, 256, size=length, dtype=np.uint16)
        document[-1] = tokenizer.info.eos_id
        writer.append(document, number.to_bytes(HASH_BYTES, "big"))
        written, number = written + length, number + 1
    _finish(builder, writer.close())


def sparse_store(path: Path, num_tokens: int) -> int:
    """Write a store of about `num_tokens` zeros that occupies no disk space; returns its tokens.

    Shards have the real format and size: hard links to one sparse file.
    """
    num_shards = -(-num_tokens // SHARD_TOKENS)
    builder = StoreBuilder(path, byte_tokenizer())
    form = builder.format
    folder = path / "synthetic"
    folder.mkdir(parents=True)
    first = folder / "train-00000.arrow"
    batch = pa.record_batch([pa.array(np.zeros(BATCH_TOKENS, dtype=np.uint16))], schema=form.schema)
    with first.open("wb") as file:
        with pa.ipc.new_file(_SparseFile(file), form.schema) as writer:
            for _ in range(SHARD_TOKENS // BATCH_TOKENS):
                writer.write_batch(batch)
        file.truncate()
    shards = []
    for number in range(num_shards):
        name = f"train-{number:05d}.arrow"
        if number:
            os.link(first, folder / name)
        shards.append(_file_info(path, f"synthetic/{name}", SHARD_TOKENS))
    tokens = num_shards * SHARD_TOKENS
    table = StreamWriter(path, "table", form)
    table.append(np.zeros(1, dtype=np.uint16), bytes(HASH_BYTES))
    info = table.close()
    stream = info.model_copy(update={"tokens": tokens, "shards": tuple(shards)})
    _finish(builder, stream)
    return tokens


class _SparseFile(io.RawIOBase):
    """Writes large blocks of zeros as holes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def write(self, data: Any) -> int:
        size = len(data)
        if size > io.DEFAULT_BUFFER_SIZE and not np.frombuffer(data, dtype=np.uint8).any():
            self._file.seek(size, os.SEEK_CUR)
        else:
            self._file.write(data)
        return size


def _file_info(root: Path, name: str, rows: int) -> FileInfo:
    return FileInfo(
        file=name, rows=rows, num_bytes=(root / name).stat().st_size, sha256=f"{name:0>64.64}"
    )


def _finish(builder: StoreBuilder, stream: StreamInfo) -> None:
    builder.add_source("synthetic", {TRAIN: stream})
    builder.finish(settings={"synthetic": True}, dropped={})
