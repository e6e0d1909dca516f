"""What a store holds, as values and as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.manifest import Manifest
from data.packing import PackingInfo


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return the contents of `moe data inspect --json`."""
    return {
        "tokens": manifest.tokens,
        "documents": manifest.documents,
        "dtype": manifest.dtype,
        "tokenizer": manifest.tokenizer.model_dump(),
        "splits": {
            name: {
                "tokens": sum(stream.tokens for stream in manifest.streams(name)),
                "documents": sum(stream.documents for stream in manifest.streams(name)),
            }
            for name in ("train", "held_out")
        },
        "sources": [
            {
                "name": source.name,
                "weight": source.weight,
                "tokens": sum(stream.tokens for stream in source.splits.values()),
                "documents": sum(stream.documents for stream in source.splits.values()),
            }
            for source in manifest.sources
        ],
        "shards": [s.model_dump() for stream in manifest.streams() for s in stream.shards],
        "dropped": manifest.dropped,
        "chat": None if manifest.chat is None else manifest.chat.model_dump(),
        "settings": manifest.settings,
    }


def summary_text(store: Path, values: dict[str, Any]) -> str:
    """Return the same for people."""
    tokenizer = values["tokenizer"]
    lines = [
        f"{store}: {values['tokens']:,} tokens ({values['dtype']}),"
        f" {values['documents']:,} documents, {len(values['shards'])} shards",
        f"tokenizer  {tokenizer['kind']}, {tokenizer['vocab_size']:,} ids,"
        f" {tokenizer['eos_token']} = {tokenizer['eos_id']}, sha256 {tokenizer['sha256'][:12]}",
    ]
    if values["chat"] is not None:
        lines.append(f"holds      {values['chat']['kind']}")
    lines += [
        f"{name:<10} {split['tokens']:,} tokens, {split['documents']:,} documents"
        for name, split in values["splits"].items()
    ]
    lines += [f"dropped    {reason}: {count:,}" for reason, count in values["dropped"].items()]
    return "\n".join(lines)


def packing_text(packed: Sequence[PackingInfo]) -> str:
    """Return what packing costs and saves, one line a source and split."""
    width = max((len(f"{info.source} {info.split}") for info in packed), default=0)
    return "\n".join(
        f"{info.source} {info.split}".ljust(width)
        + f"  {info.documents:,} documents in {info.index.rows:,} sequences of {info.seq_len}:"
        f" {info.padding_share:.2%} padding, {info.cut_share:.2%} of documents cut"
        f" (end to end: {info.cut_share_concatenated:.2%})"
        for info in packed
    )
