"""Which sequence is sample i of a run, and how it fills a row of a batch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.config import DataConfig
from data.errors import DataError
from data.loading.blend import Blend
from data.loading.conversations import Examples, open_conversations
from data.loading.order import shuffled
from data.loading.packing import PackedStream
from data.loading.row_buffers import RowBuffers
from data.store.manifest import HELD_OUT, SplitName
from data.store.reader import Store, TokenStream

Indices = NDArray[np.int64]
RowLocations = tuple[Indices, Indices]
"""Source and sequence of each row."""


class SequenceSource(Protocol):
    """The sequences of one source, by number."""

    name: str

    def __len__(self) -> int:
        """Return the number of sequences."""

    def fill(self, sample: int, rows: RowBuffers, row: int) -> None:
        """Fill one row with sequence `sample`."""


class ChunkedStream:
    """Concatenate and chunk: sequence j is tokens [j * S, j * S + S], inputs and their labels."""

    def __init__(self, stream: TokenStream, seq_len: int, eos_id: int | None) -> None:
        """Cut a stream; `eos_id` marks document borders, None leaves them unmarked."""
        self.name = stream.name
        self._stream, self._seq_len, self._eos_id = stream, seq_len, eos_id

    def __len__(self) -> int:
        """Return the number of sequences."""
        return max(self._stream.num_tokens - 1, 0) // self._seq_len

    def fill(self, sample: int, rows: RowBuffers, row: int) -> None:
        """Fill one row."""
        window = self._stream.read(sample * self._seq_len, self._seq_len + 1)
        rows.tokens[row] = window[:-1]
        rows.labels[row] = window[1:]
        if self._eos_id is not None:
            rows.mark_ends(window[:-1] == self._eos_id, row)


class SampleStream:
    """The stream of samples: endless and reshuffled (train), or once in stored order (held out)."""

    rows_each = 1
    """Sequences of one example."""

    def __init__(
        self,
        sources: Sequence[SequenceSource],
        config: DataConfig,
        blend: Blend | None,
        *,
        in_order: bool,
        dtype: str,
        identity: dict[str, Any],
    ) -> None:
        self.sources = sources
        self.dtype = dtype
        """Type of the stored tokens."""
        self._config, self._blend, self._in_order = config, blend, in_order
        self._identity = identity
        self._sizes = np.array([len(source) for source in sources], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._count = int(self._starts[-1])
        self._seeds = [_source_seed(config.seed, source.name) for source in sources]

    def __len__(self) -> int:
        """Return the number of different sequences."""
        return self.rows_each * self._count

    def identity(self, num_samples: int) -> dict[str, Any]:
        """Return everything the first `num_samples` samples depend on, as JSON values."""
        phases = None if self._blend is None else self._blend.phases(num_samples // self.rows_each)
        return {**self._identity, "phases": phases}

    def describe(self, num_samples: int) -> dict[str, Any]:
        """Return each source's sequences, epochs in the first `num_samples`, and packing."""
        sources = {}
        for (name, epochs), source in zip(
            self.epochs(num_samples).items(), self.sources, strict=True
        ):
            row: dict[str, Any] = {"sequences": len(source), "epochs": epochs}
            if isinstance(source, PackedStream):
                row |= source.info.model_dump(include={"padding_share", "cut_share"})
            sources[name] = row
        return sources

    def epochs(self, num_samples: int) -> dict[str, float]:
        """Return how often each source is read in the first `num_samples` samples."""
        examples = num_samples // self.rows_each
        if self._blend is None:
            read = examples / max(self._count, 1)
            return {s.name: read if len(s) else 0.0 for s in self.sources}
        counts = self._blend.counts(examples) / np.maximum(self._sizes, 1)
        return {s.name: float(c) for s, c in zip(self.sources, counts, strict=True)}

    def check(self, num_samples: int) -> None:
        """Raise DataError where the first `num_samples` samples repeat a source too often."""
        if self._in_order:
            if num_samples > len(self):
                raise DataError(f"split held_out has {len(self)} sequences, not {num_samples}")
            return
        limits = self._config.max_epochs
        for name, epochs in self.epochs(num_samples).items() if limits is not None else ():
            limit = limits.get(name) if isinstance(limits, Mapping) else limits
            if limit is not None and epochs > limit:
                raise DataError(
                    f"source {name!r} would be read {epochs:.3g} times in {num_samples} samples,"
                    f" beyond data.max_epochs={limit}: train for fewer steps, lower its weight or"
                    " raise max_epochs"
                )

    def locate(self, positions: Indices) -> tuple[Indices, Indices]:
        """Return source and sequence of each sample; positions rise, int64 [positions] each."""
        self.check(int(positions[-1]) + 1)
        return self._locate(positions)

    def _locate(self, positions: Indices) -> tuple[Indices, Indices]:
        if self._blend is None:
            if not self._in_order:
                positions = shuffled(positions, self._count, self._config.seed)
            sources = np.searchsorted(self._starts, positions, side="right") - 1
            return sources, positions - self._starts[sources]
        sources, ordinals = self._blend.locate(positions)
        samples = np.empty_like(ordinals)
        for source in np.unique(sources):
            here = sources == source
            size = int(self._sizes[source])
            samples[here] = shuffled(ordinals[here], size, self._seeds[source])
        return sources, samples

    def fill(
        self, sources: Indices, samples: Indices, rows: RowBuffers
    ) -> NDArray[np.int32] | None:
        """Fill a batch's rows; returns the documents' borders under `document_mask`."""
        places = zip(sources.tolist(), samples.tolist(), strict=True)
        for row, (source, sample) in enumerate(places):
            self.sources[source].fill(sample, rows, row)
        return rows.restart_positions() if self._config.document_mask else None


class PairSampleStream(SampleStream):
    """A stream of pairs: sequences 2i and 2i + 1 are the two of pair i."""

    rows_each = 2

    def _locate(self, positions: Indices) -> tuple[Indices, Indices]:
        sources, pairs = super()._locate(positions[::2] // 2)
        return sources.repeat(2), 2 * pairs.repeat(2) + positions % 2


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
        [] if split == HELD_OUT else _phases(config, stores, global_batch_size // kind.rows_each)
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
    )


def _files_sha256(stores: Sequence[Store]) -> str:
    hashes = [info.sha256 for store in stores for info in store.manifest.files()]
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


def open_sources(
    store: Store,
    config: DataConfig,
    seq_len: int,
    split: SplitName,
    examples: Examples,
    *,
    is_first: bool = True,
) -> list[SequenceSource]:
    """Open the sources of one store's split; those of a further store bear its name."""
    eos_id = store.manifest.tokenizer.eos_id if config.document_mask else None
    sources: list[SequenceSource] = []
    for stream in store.split(split).streams:
        source: SequenceSource
        if examples != "text":
            source = open_conversations(store, stream, split, seq_len, examples, config.too_long)
        elif config.packing == "concatenate" or not stream.num_documents:
            source = ChunkedStream(stream, seq_len, eos_id)
        else:
            source = PackedStream(store, stream, split, seq_len)
        if not is_first:
            source.name = f"{store.path.name}/{stream.name}"
        sources.append(source)
    return sources


def _phases(
    config: DataConfig, stores: Sequence[Store], examples_a_step: int
) -> list[tuple[int, dict[str, float]]]:
    """Return (first example, weights) of each phase; none where every one counts once."""
    weights = config.weights
    if weights is None and len(stores) == 1:
        recipe = {s.name: s.weight for s in stores[0].manifest.sources if s.weight is not None}
        weights = recipe or None
    if weights is None:
        if config.changes:
            raise DataError("data.changes needs data.weights to start from: set them")
        return []
    changes = [(change.step * examples_a_step, change.weights) for change in config.changes]
    return [(0, dict(weights)), *((start, dict(other)) for start, other in changes)]


def _source_seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"source {seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
