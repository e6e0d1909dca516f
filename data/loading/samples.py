"""Opening the sample stream that the `[data]` section describes."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from data.config import DataConfig
from data.errors import DataError
from data.loading.blend import Blend
from data.loading.conversations import Examples
from data.loading.packing import PackedStream
from data.loading.sample_stream import PairSampleStream, SampleStream
from data.loading.sequence_sources import SequenceSource, open_sources
from data.store.manifest import HELD_OUT, SplitName
from data.store.reader import Store


def open_samples(
    config: DataConfig,
    *,
    seq_len: int,
    global_batch_size: int,
    split: SplitName,
    vocab_size: int | None,
    examples: Examples = "text",
) -> SampleStream:
    """Open the sample stream that the `[data]` section describes.

    Raises:
        DataError: See `Loader`.
    """
    stores = _open_stores(config, vocab_size)
    sources = [
        source
        for index, store in enumerate(stores)
        for source in open_sources(store, config, seq_len, split, examples, is_first=index == 0)
    ]
    kind = PairSampleStream if examples == "pairs" else SampleStream
    names = [source.name for source in sources]
    phases = (
        []
        if split == HELD_OUT
        else _phases(config, stores, global_batch_size // kind.sequences_per_example)
    )
    _check_names(config, names)
    if split != HELD_OUT:
        _check_sizes(config, sources, phases)
    identity = {
        "files": _files_sha256(stores),
        "sources": names,
        "packing": [s.info.index.sha256 if isinstance(s, PackedStream) else None for s in sources],
        "document_mask": config.document_mask,
        "examples": examples,
        "too_long": config.too_long,
        "seq_len": seq_len,
        "seed": config.seed,
        "split": split,
    }
    return kind(
        sources,
        config,
        Blend(names, phases) if phases else None,
        in_order=split == HELD_OUT,
        dtype=stores[0].manifest.dtype,
        identity=identity,
        former_identity={"files": _files_sha256(stores, with_dropped=True)},
    )


def _files_sha256(stores: Sequence[Store], *, with_dropped: bool = False) -> str:
    """Hash what samples are made of: not the table of dropped documents, which holds paths."""
    manifests = [store.manifest for store in stores]
    hashes = [
        info.sha256
        for manifest in manifests
        for info in manifest.files()
        if with_dropped or info != manifest.dropped_table
    ]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _check_names(config: DataConfig, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise DataError("data.more_stores: two of their folders have one name: rename one")
    limits = config.max_epochs
    for name in limits if isinstance(limits, Mapping) else ():
        if name not in names:
            raise DataError(f"data.max_epochs: no source {name!r}; there are {', '.join(names)}")


def _check_sizes(
    config: DataConfig,
    sources: Sequence[SequenceSource],
    phases: Sequence[tuple[int, Mapping[str, float]]],
) -> None:
    sizes = {source.name: len(source) for source in sources}
    if not any(sizes.values()):
        raise DataError(
            f"{config.store}: split train has too few tokens for one sequence: build from more"
            " text, or shorten train.seq_len"
        )
    for name in (name for _, weights in phases for name, weight in weights.items() if weight):
        if sizes.get(name) == 0:
            raise DataError(
                f"source {name!r} has a weight, but too few tokens for one sequence: set"
                " data.weights with 0 for it, or shorten train.seq_len"
            )


def _open_stores(config: DataConfig, vocab_size: int | None) -> list[Store]:
    if config.store is None:
        raise DataError("data.store is not set: name a store written by `moe data build`")
    stores = [Store.open(path) for path in (config.store, *config.more_stores)]
    first = stores[0].manifest.tokenizer
    for store in stores[1:]:
        if store.manifest.tokenizer != first:
            raise DataError(f"{store.path}: made with another tokenizer than {config.store}")
    if vocab_size is not None and first.vocab_size > vocab_size:
        raise DataError(
            f"{config.store}: its tokenizer has {first.vocab_size} ids but model.vocab_size="
            f"{vocab_size}: raise model.vocab_size or build the store with a smaller vocabulary"
        )
    return stores


def _phases(
    config: DataConfig, stores: Sequence[Store], examples_per_step: int
) -> list[tuple[int, dict[str, float]]]:
    """Return (first example, weights) of each phase; none where sources are not weighted."""
    weights = config.weights
    if weights is None and len(stores) == 1:
        recipe = {s.name: s.weight for s in stores[0].manifest.sources if s.weight is not None}
        weights = recipe or None
    if weights is None:
        if config.changes:
            raise DataError("data.changes needs data.weights to start from: set them")
        return []
    changes = [(change.step * examples_per_step, change.weights) for change in config.changes]
    return [(0, dict(weights)), *((start, dict(other)) for start, other in changes)]
