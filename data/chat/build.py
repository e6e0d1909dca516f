"""From chat files to a conversation store: a token store that knows which tokens are answers.

A store holds conversations (`messages`, or ShareGPT's `conversations`) or pairs of them
(`chosen` and `rejected`, with or without `prompt`); a pair is two documents, the chosen one first.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.chat.answer_ends import TemplateError
from data.chat.encoding import encode_example
from data.chat.examples import ExampleKind, read_example
from data.chat.messages import ExampleError
from data.chat.rows import read_rows, source_name
from data.chat.template import ChatTemplate, EncodedConversation
from data.chat.template_loading import load_chat_template
from data.chat.unread_fields import UnreadFields
from data.errors import DataError
from data.storage.new_directory import new_directory, refuse_existing
from data.store.builder import StoreBuilder
from data.store.manifest import (
    HELD_OUT,
    MANIFEST_FILE,
    TRAIN,
    ChatInfo,
    Manifest,
    SplitName,
    StreamInfo,
)
from data.store.reader import Store
from data.store.writer import (
    HASH_BYTES,
    TABLE_BATCH_ROWS,
    ArrowFileWriter,
    StreamWriter,
    is_held_out,
)
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer, local_tokenizer

ANSWER_SCHEMA = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("start", "end")])


@dataclass
class _ChatBuild:
    """What the files of one build share."""

    builder: StoreBuilder
    template: ChatTemplate
    held_out_fraction: float
    strict: bool
    kind: ExampleKind | None = None
    """Of all examples so far."""
    dropped: Counter[str] = field(default_factory=Counter)
    first_fault: str | None = None
    """Of the first line that was dropped."""
    seen: set[bytes] = field(default_factory=set)
    """Hashes of the examples in the store so far."""
    answer_ends: set[int] = field(default_factory=set)
    """Tokens that end the answers in the store so far."""

    def __post_init__(self) -> None:
        self.unread_fields = UnreadFields(self.template)


def build_chat_store(
    files: Sequence[Path],
    out: Path,
    *,
    tokenizer: str,
    eos_token: str | None = None,
    template: str = "plain",
    held_out_fraction: float = 0.02,
    strict: bool = False,
) -> Manifest:
    """Tokenize chat files into a store, each file a source named after it.

    Args:
        files: One example a line, or a row of Parquet and Arrow.
        out: The store to make.
        tokenizer: `bytes`, a `tokenizer.json` or its folder (a store is one).
        eos_token: The token that ends a document. Default: the tokenizer's own.
        template: `plain`, `chatml`, `tokenizer` (the folder's own) or a Jinja file.
        held_out_fraction: Fraction of examples held out for evaluation, chosen by their hash.
        strict: Refuse the first line that is no example, instead of counting it.

    Raises:
        DataError: Wrong input; nothing is left at `out`.
    """
    refuse_existing(out)
    folder = None if tokenizer == "bytes" else Path(tokenizer)
    model = byte_tokenizer(eos_token) if folder is None else _tokenizer_of(folder, eos_token)
    chat_template = load_chat_template(
        template, model, folder if folder and folder.is_dir() else None
    )
    chat_template.check_answer_end()
    with new_directory(out) as root:
        build = _ChatBuild(StoreBuilder(root, model), chat_template, held_out_fraction, strict)
        _check_files(files)
        for file in files:
            _write_source(build, file)
        return _finish(build)


def _tokenizer_of(path: Path, eos_token: str | None) -> Tokenizer:
    """Return the tokenizer of a file, a folder, or a store with its end-of-document token."""
    is_store = (path / MANIFEST_FILE).is_file()
    if is_store and eos_token is None:
        return Store.open(path).tokenizer
    return local_tokenizer(path, eos_token)


def _check_files(files: Sequence[Path]) -> None:
    names = Counter(map(source_name, files))
    repeated = next((name for name, count in names.items() if count > 1), None)
    if repeated is not None:
        raise DataError(f"two files are named {repeated}: rename one (files are sources by name)")
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such file: give JSONL, Parquet or Arrow files")


def _finish(build: _ChatBuild) -> Manifest:
    if build.kind is None:
        if build.first_fault is None:
            raise DataError("no example is left (the files are empty): give others")
        counts = ", ".join(f"{reason}: {count}" for reason, count in build.dropped.items())
        raise DataError(f"no example is left ({counts}); the first: {build.first_fault}")
    template = build.template
    return build.builder.finish(
        settings={"held_out_fraction": build.held_out_fraction},
        dropped=build.dropped,
        counts=dict(sorted(build.unread_fields.counts.items())),
        chat=ChatInfo(
            kind=build.kind,
            template=template.template,
            names=template.names,
            answer_ends=tuple(sorted(build.answer_ends)),
        ),
    )


def _write_source(build: _ChatBuild, file: Path) -> None:
    source = source_name(file)
    streams = build.builder.stream_writers(source)
    splits: dict[SplitName, _SplitWriter] = {
        name: _SplitWriter(build.builder, stream, f"{source}/{name}")
        for name, stream in streams.items()
    }
    try:
        for location, line in read_rows(file):
            example = _read(build, line, location)
            if example is not None:
                documents, content_hash = example
                held_out = is_held_out(content_hash, build.held_out_fraction)
                for document in documents:
                    splits[HELD_OUT if held_out else TRAIN].append(document, content_hash)
    finally:
        written = {name: split.close() for name, split in splits.items()}
    build.builder.add_source(source, written)


def _read(
    build: _ChatBuild, line: bytes, location: str
) -> tuple[list[EncodedConversation], bytes] | None:
    """Return a line's documents and their hash; None where it is counted as dropped."""
    try:
        example = read_example(line)
        documents = encode_example(build.template, example)
        content_hash = _checked_hash(build, example.kind, documents)
        build.unread_fields.count(example)
    except (ExampleError, TemplateError) as error:
        _drop(build, error.reason, f"{location}: {error}")
        return None
    except RecursionError:
        _drop(build, "bad_json", f"{location}: bad_json: nested too deeply")
        return None
    build.answer_ends.update(*(document.ends for document in documents))
    return documents, content_hash


def _drop(build: _ChatBuild, reason: str, fault: str) -> None:
    """Count a line that is left out.

    Raises:
        DataError: Nothing may be left out.
    """
    if build.strict:
        raise DataError(fault)
    build.dropped[reason] += 1
    build.first_fault = build.first_fault or fault


def _checked_hash(
    build: _ChatBuild, kind: ExampleKind, documents: list[EncodedConversation]
) -> bytes:
    """Return an example's hash; refuses duplicates."""
    if kind == "pairs" and np.array_equal(documents[0].tokens, documents[1].tokens):
        raise ExampleError("equal_pair", "chosen and rejected are the same")
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for document in documents:
        digest.update(document.tokens.tobytes())
    content_hash = digest.digest()
    if content_hash in build.seen:
        raise ExampleError("duplicate", "the same example came before")
    if build.kind not in {None, kind}:
        raise DataError(f"the files hold {build.kind} and {kind}: build a store of each")
    build.kind = kind
    build.seen.add(content_hash)
    return content_hash


class _SplitWriter:
    """Writes the documents of one source and split, and the positions of their answers."""

    def __init__(self, builder: StoreBuilder, stream: StreamWriter, prefix: str) -> None:
        self._stream = stream
        self._answers = ArrowFileWriter(builder.root, f"{prefix}-answers.arrow", ANSWER_SCHEMA)
        self._dtype = builder.format.dtype
        self._written = 0
        self._spans: list[tuple[int, int]] = []

    def append(self, document: EncodedConversation, content_hash: bytes) -> None:
        """Append one conversation."""
        self._spans += [(self._written + a, self._written + b) for a, b in document.answers]
        self._stream.append(document.tokens.astype(self._dtype), content_hash)
        self._written += document.tokens.size
        if len(self._spans) >= TABLE_BATCH_ROWS:
            self._flush()

    def close(self) -> StreamInfo:
        """Complete the files."""
        self._flush()
        return self._stream.close().model_copy(update={"answers": self._answers.close()})

    def _flush(self) -> None:
        if self._spans:
            starts, ends = zip(*self._spans, strict=True)
            self._answers.write(pa.array(starts), pa.array(ends))
            self._spans = []
