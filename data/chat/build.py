"""From chat JSONL to a conversation store: a token store that knows which tokens are answers.

A store holds conversations (`messages`, or ShareGPT's `conversations`) or pairs of them
(`chosen` and `rejected`, with or without `prompt`); a pair is two documents, the chosen one first.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from data.chat.template import (
    ASSISTANT,
    ChatTemplate,
    EncodedConversation,
    Message,
    TemplateError,
    load_chat_template,
)
from data.errors import DataError
from data.storage.atomic import write_text
from data.storage.new_directory import new_directory, refuse_existing
from data.store.manifest import (
    FORMAT_VERSION,
    HELD_OUT,
    TRAIN,
    ChatInfo,
    Manifest,
    SplitName,
    StoreSource,
    StreamInfo,
)
from data.store.writer import (
    BATCH_TOKENS,
    HASH_BYTES,
    SHARD_TOKENS,
    TABLE_BATCH_ROWS,
    ArrowFileWriter,
    StreamFormat,
    StreamWriter,
    dtype_for,
    is_held_out,
)
from data.tokenization.info import TOKENIZER_FILE
from data.tokenization.tokenizer import Tokenizer, byte_tokenizer, local_tokenizer

ANSWER_SCHEMA = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("start", "end")])
SHAREGPT_ROLES = {"human": "user", "gpt": ASSISTANT, "bing": ASSISTANT, "chatgpt": ASSISTANT}

Kind = Literal["conversations", "pairs"]


class LineError(ValueError):
    """A line that is no example; `reason` is one word for the counts of what was dropped."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass
class _Build:
    """What the files of one build share."""

    root: Path
    form: ChatTemplate
    tokenizer: Tokenizer
    held_out_fraction: float
    strict: bool
    kind: Kind | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)
    """Hashes of the examples kept so far."""


def build_chat_store(
    files: Sequence[Path],
    out: Path,
    *,
    tokenizer: str,
    template: str = "plain",
    held_out_fraction: float = 0.02,
    strict: bool = False,
) -> Manifest:
    """Tokenise chat JSONL files into a store, each file a source named after it.

    Args:
        files: One example a line.
        out: The store to make.
        tokenizer: `bytes`, a `tokenizer.json` or its folder (a store is one).
        template: `plain`, `chatml`, `tokenizer` (the folder's own) or a Jinja file.
        held_out_fraction: Share of examples kept for evaluation, chosen by their hash.
        strict: Refuse the first line that is no example, instead of counting it.

    Raises:
        DataError: Wrong input; nothing is left at `out`.
    """
    refuse_existing(out)
    folder = None if tokenizer == "bytes" else Path(tokenizer)
    model = byte_tokenizer() if folder is None else local_tokenizer(folder)
    form = load_chat_template(template, model, folder if folder and folder.is_dir() else None)
    with new_directory(out) as root:
        build = _Build(root, form, model, held_out_fraction, strict)
        sources = tuple(_write_source(build, file) for file in _named(files))
        manifest = _manifest(build, sources)
        write_text(root / TOKENIZER_FILE, model.text)
        manifest.write(root)
    return manifest


def _named(files: Sequence[Path]) -> Sequence[Path]:
    names = Counter(file.stem for file in files)
    double = next((name for name, count in names.items() if count > 1), None)
    if double is not None:
        raise DataError(f"two files are named {double}: rename one (files are sources by name)")
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such file: give JSONL files")
    return files


def _manifest(build: _Build, sources: tuple[StoreSource, ...]) -> Manifest:
    info = build.tokenizer.info
    if build.kind is None:
        counts = ", ".join(f"{reason}: {count}" for reason, count in build.dropped.items())
        raise DataError(f"no example is left ({counts or 'the files are empty'})")
    return Manifest(
        format_version=FORMAT_VERSION,
        dtype=dtype_for(info.vocab_size),
        batch_tokens=BATCH_TOKENS,
        shard_tokens=SHARD_TOKENS,
        tokenizer=info,
        sources=sources,
        dropped=dict(sorted(build.dropped.items())),
        chat=ChatInfo(kind=build.kind, template=build.form.template, names=build.form.names),
        settings={"held_out_fraction": build.held_out_fraction},
    )


def _write_source(build: _Build, file: Path) -> StoreSource:
    splits: dict[SplitName, _SplitWriter] = {
        name: _SplitWriter(build, f"{file.stem}/{name}") for name in (TRAIN, HELD_OUT)
    }
    try:
        for number, line in _lines(file):
            example = _read(build, line, f"{file}, line {number}")
            if example is not None:
                documents, content_hash = example
                held_out = is_held_out(content_hash, build.held_out_fraction)
                for document in documents:
                    splits[HELD_OUT if held_out else TRAIN].append(document, content_hash)
    finally:
        written = {name: split.close() for name, split in splits.items()}
    return StoreSource(name=file.stem, weight=None, splits=written)


def _read(build: _Build, line: bytes, place: str) -> tuple[list[EncodedConversation], bytes] | None:
    """Return a line's documents and their hash; None where it is counted as dropped."""
    try:
        kind, conversations = read_example(line)
        documents = _encoded(build.form, conversations)
        return documents, _checked_hash(build, kind, documents)
    except (LineError, TemplateError) as error:
        if build.strict:
            raise DataError(f"{place}: {error}") from None
        build.dropped[getattr(error, "reason", "template")] += 1
        return None


def _encoded(form: ChatTemplate, conversations: list[list[Message]]) -> list[EncodedConversation]:
    """Return documents; of a pair, answers that both share are part of the question."""
    documents = [form.encode(messages) for messages in conversations]
    if len(documents) == 1:
        return documents
    both = takewhile(lambda pair: pair[0] == pair[1], zip(*conversations, strict=False))
    shared = sum(message["role"] == ASSISTANT for message, _ in both)
    return [
        EncodedConversation(document.tokens, document.answers[shared:]) for document in documents
    ]


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield number, line


def _checked_hash(build: _Build, kind: Kind, documents: list[EncodedConversation]) -> bytes:
    """Return an example's hash; refuses what cannot be learned from, and what came before."""
    if not all(document.answers for document in documents):
        raise LineError("no_answer", f"no message of the {ASSISTANT}")
    if kind == "pairs" and np.array_equal(documents[0].tokens, documents[1].tokens):
        raise LineError("equal_pair", "chosen and rejected are the same")
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for document in documents:
        digest.update(document.tokens.tobytes())
    content_hash = digest.digest()
    if content_hash in build.seen:
        raise LineError("duplicate", "the same example came before")
    if build.kind not in {None, kind}:
        raise DataError(f"the files hold {build.kind} and {kind}: build a store of each")
    build.kind = kind
    build.seen.add(content_hash)
    return content_hash


class _SplitWriter:
    """Writes the documents of one source and split, and where their answers lie."""

    def __init__(self, build: _Build, prefix: str) -> None:
        info = build.tokenizer.info
        form = StreamFormat(dtype=dtype_for(info.vocab_size), tokenizer_sha256=info.sha256)
        self._stream = StreamWriter(build.root, prefix, form)
        self._answers = ArrowFileWriter(build.root, f"{prefix}-answers.arrow", ANSWER_SCHEMA)
        self._dtype = form.dtype
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


def read_example(line: bytes) -> tuple[Kind, list[list[Message]]]:
    """Return what a line is, and its conversations: one, or the chosen and the rejected.

    Raises:
        LineError: It is neither.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError("bad_json", str(error)) from None
    if not isinstance(record, dict):
        raise LineError("bad_json", "not an object")
    if "chosen" in record and "rejected" in record:
        prompt = _messages(record["prompt"], "user") if "prompt" in record else []
        both = [_messages(record[key], ASSISTANT) for key in ("chosen", "rejected")]
        return "pairs", [_after(prompt, messages) for messages in both]
    for key in ("messages", "conversations"):
        if key in record:
            return "conversations", [_messages(record[key], "user")]
    raise LineError("no_messages", "none of the keys messages, conversations, chosen and rejected")


def _after(prompt: list[Message], messages: list[Message]) -> list[Message]:
    """Return a whole conversation; some files repeat the prompt in each answer."""
    repeats = bool(prompt) and messages[: len(prompt)] == prompt
    return messages if repeats else [*prompt, *messages]


def _messages(value: Any, role: str) -> list[Message]:
    """Return messages of a list, or one of a string, which `role` said."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise LineError("no_messages", "messages are neither a text nor a list")
    return [_message(item) for item in value]


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise LineError("bad_message", "a message is not an object")
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if isinstance(content, list):
        texts = [part["text"] for part in content if _is_text(part)]
        content = "".join(texts) if len(texts) == len(content) else None
    if content is None and item.get("tool_calls"):
        content = ""
    if not isinstance(role, str) or not isinstance(content, str):
        raise LineError("bad_message", "role and content are not both text")
    rest = {k: v for k, v in item.items() if k not in {"role", "from", "content", "value"}}
    return {"role": SHAREGPT_ROLES.get(role, role), "content": content, **rest}


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)
