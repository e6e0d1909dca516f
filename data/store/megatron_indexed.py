r"""Megatron's indexed datasets (`.bin` and `.idx`): import without tokenizing again, and export.

Layout of `.idx`, little endian, as megatron-core's `indexed_dataset.py` reads it: b"MMIDIDX\0\0",
uint64 version 1, uint8 dtype code, uint64 number of sequences, uint64 number of document
boundaries, int32 length of each sequence in tokens, int64 byte offset of each sequence in `.bin`,
int64 document boundaries, as numbers of sequences, beginning with 0.
"""

import hashlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.errors import DataError
from data.progress import BuildProgress, ProgressCallback
from data.storage.atomic import atomic_file
from data.storage.new_directory import new_directory, refuse_existing
from data.store.builder import StoreBuilder
from data.store.manifest import HELD_OUT, TRAIN, Manifest, SplitName
from data.store.reader import Store, TokenStream
from data.store.writer import HASH_BYTES, is_held_out
from data.tokenization.info import TokenizerInfo
from data.tokenization.tokenizer import Tokenizer

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES: dict[int, str] = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 8: "u2"}
CODES = {"uint16": 8, "uint32": 4}
"""Code written for each store type; Megatron knows no uint32, so wide vocabularies are int32."""
EXPORT_TOKENS = 1 << 22
DOCUMENTS_PER_REPORT = 1024
SOURCE = "megatron"
DROPPED_PREFIX = "dropped."


@dataclass(frozen=True)
class IndexedDataset:
    """A memory-mapped `.bin` and `.idx` pair."""

    tokens: NDArray[Any]
    starts: NDArray[np.int64]
    """First token of each document."""
    ends: NDArray[np.int64]
    """One past the last."""

    @classmethod
    def open(cls, prefix: Path) -> "IndexedDataset":
        """Open `PREFIX.bin` and `PREFIX.idx` (or either of their names).

        Raises:
            DataError: A file is missing or truncated, or is no indexed dataset.
        """
        base = prefix.with_suffix("") if prefix.suffix in (".bin", ".idx") else prefix
        index_file, token_file = (base.with_name(base.name + end) for end in (".idx", ".bin"))
        for path in (index_file, token_file):
            if not path.is_file():
                raise DataError(f"{path}: missing: name the prefix of a .bin and .idx pair")
        code, lengths, offsets, boundaries = _read_index(index_file)
        if (lengths < 0).any() or (offsets < 0).any():
            raise DataError(f"{index_file}: negative lengths or offsets: copy it again")
        if not boundaries.size or boundaries[0] or (np.diff(boundaries) < 0).any():
            raise DataError(f"{index_file}: document boundaries do not rise from 0: copy it again")
        if boundaries[-1] > lengths.size:
            raise DataError(f"{index_file}: document boundaries beyond its sequences")
        tokens = _mapped(token_file, DTYPES[code])
        firsts = offsets // tokens.itemsize
        is_short = (firsts > tokens.size - lengths).any()  # a sum of both might overflow
        if (offsets % tokens.itemsize).any() or is_short:
            raise DataError(f"{token_file}: shorter than {index_file.name} says: copy it again")
        if (firsts != np.cumsum(lengths) - lengths).any():
            raise DataError(f"{index_file}: sequences do not follow one another: not supported")
        sequence_ends = np.concatenate([[0], firsts + lengths])
        return cls(tokens, sequence_ends[boundaries[:-1]], sequence_ends[boundaries[1:]])


def import_indexed(
    prefix: Path,
    out: Path,
    tokenizer: Tokenizer,
    held_out_fraction: float = 0.0,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Make a token store of a Megatron indexed dataset; adds missing end-of-document tokens.

    Raises:
        DataError: `out` exists, the pair is damaged, or it holds ids the tokenizer lacks.
    """
    refuse_existing(out)
    dataset = IndexedDataset.open(prefix)
    with new_directory(out) as root:
        builder = StoreBuilder(root, tokenizer)
        return _write_store(builder, dataset, prefix, tokenizer.info, held_out_fraction, progress)


def _write_store(  # noqa: PLR0913, PLR0917 - an import and where it goes
    builder: StoreBuilder,
    dataset: IndexedDataset,
    prefix: Path,
    tokenizer: TokenizerInfo,
    held_out_fraction: float,
    progress: ProgressCallback | None,
) -> Manifest:
    counts: Counter[str] = Counter()
    writers = builder.stream_writers(SOURCE)
    for number, document in enumerate(_checked_documents(dataset, tokenizer, prefix, counts), 1):
        digest = hashlib.blake2b(document.tobytes(), digest_size=HASH_BYTES).digest()
        split = HELD_OUT if is_held_out(digest, held_out_fraction) else TRAIN
        writers[split].append(document, digest)
        if progress is not None and number % DOCUMENTS_PER_REPORT == 0:
            progress(BuildProgress("import", number, dataset.ends.size, documents=number))
    splits = {split: writer.close() for split, writer in writers.items()}
    if not sum(stream.documents for stream in splits.values()):
        raise DataError(f"{prefix}: no document is left ({dict(counts)})")
    builder.add_source(SOURCE, splits)
    gone = {key for key in counts if key.startswith(DROPPED_PREFIX)}
    return builder.finish(
        dropped={key.removeprefix(DROPPED_PREFIX): counts[key] for key in gone},
        counts={key: n for key, n in sorted(counts.items()) if key not in gone},
        settings={"imported": str(prefix), "held_out_fraction": held_out_fraction},
    )


def export_indexed(
    store: Store, split: SplitName, prefix: Path, progress: ProgressCallback | None = None
) -> dict[str, int]:
    """Write one split as `PREFIX.bin` and `PREFIX.idx`; returns its documents and tokens.

    Raises:
        DataError: A file is there already, or the split is empty.
    """
    streams = [stream for stream in store.split(split).streams if stream.num_documents]
    if not streams:
        raise DataError(f"{store.path}: split {split} holds no documents")
    index_file, token_file = (prefix.with_name(prefix.name + end) for end in (".idx", ".bin"))
    for path in (index_file, token_file):
        refuse_existing(path)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    code = CODES[store.manifest.dtype]
    lengths = np.concatenate([np.diff(stream.ends, prepend=0) for stream in streams])
    total, done = int(lengths.sum()), 0
    itemsize = np.dtype(DTYPES[code]).itemsize
    offsets = (np.cumsum(lengths) - lengths) * itemsize
    with atomic_file(index_file) as index, atomic_file(token_file) as file:
        index.write(HEADER.pack(MAGIC, 1, code, lengths.size, lengths.size + 1))
        index.write(lengths.astype("<i4").tobytes())
        index.write(offsets.astype("<i8").tobytes())
        index.write(np.arange(lengths.size + 1, dtype="<i8").tobytes())
        index.flush()  # neither file takes its name before both are written
        for tokens in (tokens for stream in streams for tokens in _slices(stream)):
            file.write(tokens.astype(DTYPES[code]).tobytes())
            done += tokens.size
            if progress is not None:
                progress(BuildProgress("export", done, total, tokens=done))
    return {"documents": int(lengths.size), "tokens": total}


def _slices(stream: TokenStream) -> Iterator[NDArray[Any]]:
    for start in range(0, stream.num_tokens, EXPORT_TOKENS):
        yield stream.read(start, min(EXPORT_TOKENS, stream.num_tokens - start))


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    """Memory-map a file of numbers; an empty file, which cannot be mapped, is an empty array."""
    if path.stat().st_size % np.dtype(dtype).itemsize:
        raise DataError(f"{path}: cut short: copy it again")
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def _read_index(path: Path) -> tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return dtype code, sequence lengths (tokens), offsets (bytes) and document boundaries."""
    content = _mapped(path, "u1")
    if content.size < HEADER.size or content[: len(MAGIC)].tobytes() != MAGIC:
        raise DataError(f"{path}: not a Megatron index (no MMIDIDX header)")
    _, version, code, num_sequences, num_boundaries = HEADER.unpack(
        content[: HEADER.size].tobytes()
    )
    if version != 1 or code not in DTYPES:
        raise DataError(
            f"{path}: version {version}, dtype code {code}: not one with integer tokens"
        )
    sizes = (4 * num_sequences, 8 * num_sequences, 8 * num_boundaries)
    if content.size < HEADER.size + sum(sizes):
        raise DataError(f"{path}: cut short: copy it again")
    sections = np.split(content[HEADER.size :], np.cumsum(sizes))
    lengths, offsets, boundaries = (
        section.view(dtype).astype(np.int64)
        for section, dtype in zip(sections, ("<i4", "<i8", "<i8"), strict=False)
    )
    return code, lengths, offsets, boundaries


def _checked_documents(
    dataset: IndexedDataset, info: TokenizerInfo, prefix: Path, counts: Counter[str]
) -> Iterator[NDArray[np.uint32]]:
    """Yield documents, each with its end token, checking that the tokenizer has all their ids."""
    special = set(info.special_tokens.values())
    for number, (start, end) in enumerate(zip(dataset.starts, dataset.ends, strict=True)):
        counts["read"] += 1
        document = dataset.tokens[start:end]
        if not document.size:
            counts[f"{DROPPED_PREFIX}empty"] += 1
            continue
        if document.min() < 0 or document.max() >= info.vocab_size:
            raise DataError(
                f"{prefix}: document {number} holds ids {document.min()} to {document.max()}, the"
                f" tokenizer has {info.vocab_size}: name the one it was made with"
            )
        if int(document[0]) in special and special.issuperset(document.tolist()):
            counts[f"{DROPPED_PREFIX}only_special_tokens"] += 1
            continue
        if document[-1] != info.eos_id:
            counts["changed.end_added"] += 1
            document = np.append(document, info.eos_id)
        yield document.astype(np.uint32)
