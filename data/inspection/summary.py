"""What a store holds, as values and as text."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from data.loading.packing import PackingInfo
from data.store.manifest import HELD_OUT_CHECKED, HELD_OUT_NEAR, Manifest
from data.store.reader import Store, open_arrow

BAR_WIDTH = 30
HISTOGRAM_TITLES = {
    "characters": "Characters a document, after cleaning",
    "tokens": "Tokens a document, with its end",
    "copies": "Documents that one stands for, duplicates counted in",
    "mean_word_length": "Mean word length, characters",
    "alphabetic_words": "Share of words of letters only",
    "distinct_words": "Share of distinct words",
}
"""Histograms of a manifest, in the order in which people see them. Lengths and copies have bins
that double; the others look at a document's first 4,096 characters."""


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
                "splits": {name: stream.tokens for name, stream in source.splits.items()},
            }
            for source in manifest.sources
        ],
        "shards": [s.model_dump() for stream in manifest.streams() for s in stream.shards],
        "dropped": manifest.dropped,
        "chat": None if manifest.chat is None else manifest.chat.model_dump(),
        "counts": manifest.counts,
        "histograms": manifest.histograms,
        "canaries": [canary.model_dump() for canary in manifest.canaries],
        "libraries": manifest.libraries,
        "settings": manifest.settings,
    }


def summary_text(store: Path, values: dict[str, Any], *, histograms: bool = True) -> str:
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
    if len(values["sources"]) > 1:
        lines += [_source_line(source) for source in values["sources"]]
    lines += [f"dropped    {reason}: {count:,}" for reason, count in values["dropped"].items()]
    lines += [f"{'cleaning':<10} {name}: {n:,}" for name, n in values["counts"].items() if n]
    if near := values["counts"].get(HELD_OUT_NEAR):
        lines.append(
            f"note       {near:,} of {values['counts'][HELD_OUT_CHECKED]:,} held-out documents"
            " compared are nearly equal to one in train, so held-out losses are too low: set"
            " clean.near_duplicates = 0.8"
        )
    planted = sum(canary["repeats"] for canary in values["canaries"])
    if values["canaries"]:
        lines.append(f"canaries   {len(values['canaries'])}, planted {planted} times in all")
    for name, title in HISTOGRAM_TITLES.items() if histograms else ():
        bins = values["histograms"].get(name)
        if bins:
            lines += ["", title, *_bars(bins)]
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


def dropped_documents(
    store: Store, reason: str | None = None, limit: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield file, position, reason and detail of the documents that were left out.

    `position` is a byte offset in the (decompressed) file, or the row of a table.
    """
    info = store.manifest.dropped_table
    if info is None:
        return iter(())
    reader = open_arrow(store.path / info.file)
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
    rows = (row for batch in batches for row in batch.to_pylist())
    return islice((row for row in rows if reason in (None, row["reason"])), limit)


def edge_text(edge: str) -> str:
    """Return a bin's lower edge for people: `4,096`, `0.85`."""
    value = float(edge)
    return f"{value:,.0f}" if value.is_integer() else f"{value:g}"


def _source_line(source: Mapping[str, Any]) -> str:
    weight = "" if source["weight"] is None else f", weight {source['weight']:g}"
    return (
        f"{'source':<10} {source['name']}: {source['tokens']:,} tokens,"
        f" {source['documents']:,} documents{weight}"
    )


def _bars(bins: Mapping[str, int]) -> list[str]:
    largest = max(bins.values())
    return [
        f"{edge_text(edge):>12}  {'▇' * round(BAR_WIDTH * count / largest):<{BAR_WIDTH}} {count:,}"
        for edge, count in bins.items()
    ]
