"""The description of a token store: `manifest.json`."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from data.described_files import read_text_file
from data.errors import DataError
from data.frozen_model import FrozenModel
from data.plain_text import encodable
from data.storage.atomic import write_text
from data.storage.bounded_json import parse_json
from data.storage.plain_name import InnerName, PlainName, is_plain_name
from data.tokenization.info import TOKENIZER_FILE, TokenizerInfo

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
BUILD_STATE_FILE = "work.json"
"""State of an unfinished build; beside it lies its tokenizer."""
OWN_HASH = "manifest_sha256"

HELD_OUT_CHECKED = "held_out.checked"
HELD_OUT_NEAR = "held_out.near_train"
"""Counts of held-out documents: compared with all of train, and nearly equal to one there. Absent
where near duplicates were dropped, or nothing was compared."""

SplitName = Literal["train", "held_out"]
TRAIN: SplitName = "train"
HELD_OUT: SplitName = "held_out"


Count = Annotated[int, Field(ge=0, lt=2**63)]


def check_source_name(name: str, named_by: str) -> None:
    """Refuse a name that no source's folder can have, beside the files of its store.

    Raises:
        DataError: It is such a name; begins with `named_by`.
    """
    if not is_plain_name(name) or name in {TOKENIZER_FILE, MANIFEST_FILE, BUILD_STATE_FILE}:
        raise DataError(f"{named_by}: a source cannot be named {name!r}: rename it")


class FileInfo(FrozenModel):
    """One file of the store; `rows` counts tokens in a token shard, else table rows."""

    file: InnerName
    rows: Count
    num_bytes: Count
    sha256: str


class StreamInfo(FrozenModel):
    """The documents of one source in one split, concatenated."""

    tokens: Count
    documents: Count
    shards: tuple[FileInfo, ...]
    document_table: FileInfo
    """Arrow table with each document's end (exclusive token position), content hash and, where
    the recipe had it identified, language."""
    answers: FileInfo | None = None
    """Of conversations: Arrow table with first and one past the last token of each answer."""


class StoreSource(FrozenModel):
    """One named source and its splits."""

    name: PlainName
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    splits: dict[SplitName, StreamInfo]


class Canary(FrozenModel):
    """A secret planted in the training split."""

    text: str
    repeats: Count


class ChatInfo(FrozenModel):
    """How conversations were turned into documents."""

    kind: Literal["conversations", "pairs"]
    """`pairs`: documents 2i and 2i + 1 are the chosen and the rejected one of pair i."""
    template: str
    """Jinja text."""
    names: dict[str, str]
    """Further variables of the template, such as `bos_token`."""
    answer_ends: tuple[int, ...] = ()
    """Tokens that end the answers of this store; none in stores from before they were kept."""


class Manifest(FrozenModel):
    """The complete description of a store. Equal inputs and settings give equal manifests."""

    format_version: int
    dtype: Literal["uint16", "uint32"]
    batch_tokens: Annotated[int, Field(gt=0, lt=2**63)]
    """Tokens of every record batch but the last of a stream."""
    shard_tokens: Annotated[int, Field(gt=0, lt=2**63)]
    """Tokens of every shard but the last of a stream; a multiple of `batch_tokens`."""
    tokenizer: TokenizerInfo
    sources: tuple[StoreSource, ...]
    dropped: dict[str, int]
    """Documents left out, by reason."""
    dropped_table: FileInfo | None = None
    """Arrow table with file, position, reason and detail of each document left out."""
    counts: dict[str, int] = {}
    """What every cleaning step read, changed and found; see `data.cleaning.tally.Tally`."""
    histograms: dict[str, dict[str, int]] = {}
    """Of documents that passed cleaning, by lower bin edge; `tokens` and `copies` of those in the
    store."""
    canaries: tuple[Canary, ...] = ()
    chat: ChatInfo | None = None
    """Set in a conversation store."""
    libraries: dict[str, str] = {}
    """Versions of the libraries whose algorithms decided the content."""
    settings: dict[str, Any]
    """Every setting of the build that decided what the store holds."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.sources]
        if len({*names}) < len(names):
            raise ValueError("sources: two have one name")
        if self.shard_tokens % self.batch_tokens:
            raise ValueError("shard_tokens: not a multiple of batch_tokens")
        for stream in self.streams():
            if stream.tokens != sum(shard.rows for shard in stream.shards):
                raise ValueError("tokens: not as many as in the shards")
            if stream.documents != stream.document_table.rows:
                raise ValueError("documents: not as many as in their table")
        return self

    @property
    def tokens(self) -> int:
        """Tokens of all sources and splits, end-of-document tokens included."""
        return sum(stream.tokens for stream in self.streams())

    @property
    def documents(self) -> int:
        """Documents of all sources and splits."""
        return sum(stream.documents for stream in self.streams())

    def streams(self, split: str | None = None) -> list[StreamInfo]:
        """Return the streams of one split, or all of them."""
        return [
            stream
            for source in self.sources
            for name, stream in source.splits.items()
            if split in (None, name)
        ]

    def files(self) -> list[FileInfo]:
        """Return every file with a checksum."""
        files = [f for stream in self.streams() for f in (*stream.shards, stream.document_table)]
        files += [stream.answers for stream in self.streams() if stream.answers is not None]
        return files if self.dropped_table is None else [*files, self.dropped_table]

    def write(self, store: Path) -> None:
        """Write `manifest.json` with its own hash; its presence makes the store complete."""
        values = self.model_dump(mode="json")
        values[OWN_HASH] = _sha256(values)
        write_text(store / MANIFEST_FILE, json.dumps(values, indent=1) + "\n")

    @classmethod
    def read(cls, store: Path) -> Self:
        """Read a store's manifest.

        Raises:
            DataError: No store there, an unfinished one, or a manifest of another format.
        """
        path = store / MANIFEST_FILE
        try:
            values = parse_json(read_text_file(path))
            version = values.get("format_version")
            if version != FORMAT_VERSION:
                raise DataError(
                    f"{path}: format_version {version}, this moescale reads {FORMAT_VERSION}:"
                    " build the store again"
                )
            values.pop(OWN_HASH, None)
            return cls.model_validate(values)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"{store}: no {MANIFEST_FILE}: build the store with `moe data build`"
            ) from None
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}: make it readable") from None
        except (ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            detail = fault_of(error) if isinstance(error, ValidationError) else error
            raise DataError(f"{path}: damaged ({detail}): build the store again") from None


def fault_of(error: ValidationError) -> str:
    """Return the first fault of a file's content in one line."""
    fault = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, fault["loc"]))[:200]
    return encodable(": ".join(filter(None, (key, fault["msg"].removeprefix("Value error, ")))))


def manifest_is_intact(store: Path) -> bool:
    """Check a store's manifest against the hash that it holds."""
    values = parse_json(read_text_file(store / MANIFEST_FILE))
    return bool(values.pop(OWN_HASH, None) == _sha256(values))


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
