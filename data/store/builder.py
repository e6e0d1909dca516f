"""Assembling a token store: the streams of every source, then tokenizer and manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.plain_text import encodable_values
from data.storage.atomic import write_text
from data.store.manifest import (
    FORMAT_VERSION,
    HELD_OUT,
    TRAIN,
    Manifest,
    SplitName,
    StoreSource,
    StreamInfo,
)
from data.store.writer import StreamFormat, StreamWriter, dtype_for
from data.tokenization.info import TOKENIZER_FILE
from data.tokenization.tokenizer import Tokenizer


class StoreBuilder:
    """Writes a token store into a directory that has none."""

    def __init__(self, root: Path, tokenizer: Tokenizer, *, has_language: bool = False) -> None:
        """Prepare a store.

        Args:
            root: The store's directory.
            tokenizer: Made the token ids; decides their type.
            has_language: Whether documents come with their language.
        """
        self.root = root
        self.format = StreamFormat(
            dtype=dtype_for(tokenizer.info.vocab_size),
            tokenizer_sha256=tokenizer.info.sha256,
            has_language=has_language,
        )
        self._tokenizer = tokenizer
        self._sources: list[StoreSource] = []

    def stream_writers(self, source: str) -> dict[SplitName, StreamWriter]:
        """Start the streams of one source, by split."""
        return {
            split: StreamWriter(self.root, f"{source}/{split}", self.format)
            for split in (TRAIN, HELD_OUT)
        }

    def add_source(
        self, name: str, splits: Mapping[SplitName, StreamInfo], weight: float | None = None
    ) -> None:
        """Add a source whose streams are complete."""
        self._sources.append(StoreSource(name=name, weight=weight, splits=dict(splits)))

    def finish(
        self, *, settings: Mapping[str, Any], dropped: Mapping[str, int], **details: Any
    ) -> Manifest:
        """Write the tokenizer, then the manifest, whose presence makes the store complete.

        Args:
            settings: Every setting that decided what the store holds.
            dropped: Documents left out, by reason.
            details: Further fields of `Manifest`.
        """
        write_text(self.root / TOKENIZER_FILE, self._tokenizer.text)
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            dtype=self.format.dtype,
            batch_tokens=self.format.batch_tokens,
            shard_tokens=self.format.shard_tokens,
            tokenizer=self._tokenizer.info,
            sources=tuple(self._sources),
            dropped=dict(sorted(dropped.items())),
            settings=encodable_values(dict(settings)),
            **details,
        )
        manifest.write(self.root)
        return manifest
