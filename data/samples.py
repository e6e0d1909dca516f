"""Which sequence is sample i of a run, and how it fills a row of a batch."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.blend import Blend
from data.chat_samples import Examples, open_conversations
from data.config import DataConfig
from data.errors import DataError
from data.manifest import HELD_OUT, SplitName
from data.order import shuffled
from data.packing import PackedStream
from data.rows import Rows
from data.store import Store, TokenStream

Indices = NDArray[np.int64]
Places = tuple[Indices, Indices]
"""Source and sequence of each row."""


class SequenceSource(Protocol):
    """The sequences of one source, by number."""

    name: str

    def __len__(self) -> int:
        """Return the number of sequences."""

    def fill(self, sample: int, rows: Rows, row: int) -> None:
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

    def window(self, sample: int) -> NDArray[Any]:
        """Return the S + 1 tokens of a sequence, as they are stored."""
        return self._stream.read(sample * self._seq_len, self._seq_len + 1)

    def fill(self, sample: int, rows: Rows, row: int) -> None:
        """Fill one row."""
        window = self.window(sample)
        rows.tokens[row] = window[:-1]
        rows.labels[row] = window[1:]
        if self._eos_id is not None:
            rows.mark_ends(window[:-1] == self._eos_id, row)


class Samples:
    """The stream of samples: endless and reshuffled (train), or once in stored order (held out)."""

    def __init__(
        self,
        sources: Sequence[SequenceSource],
        config: DataConfig,
        blend: Blend | None,
        in_order: bool,
        eos_id: int,
        identity: dict[str, Any],
    ) -> None:
        self.sources = sources
        self.identity = identity
        """Everything the stream depends on, as JSON values."""
        self._config, self._blend, self._in_order = config, blend, in_order
        self._eos_id = eos_id
        self._sizes = np.array([len(source) for source in sources], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._count = int(self._starts[-1])
        self._seeds = [_source_seed(config.seed, source.name) for source in sources]

    def __len__(self) -> int:
        """Return the number of different sequences."""
        return self._count

    def epochs(self, num_samples: int) -> dict[str, float]:
        """Return how often each source is read in the first `num_samples` samples."""
        if self._blend is None:
            return {source.name: num_samples / self._count for source in self.sources}
        counts = self._blend.counts(num_samples) / self._sizes
        return {s.name: float(c) for s, c in zip(self.sources, counts, strict=True)}

    def check(self, num_samples: int) -> None:
        """Raise DataError where the first `num_samples` samples repeat a source too often."""
        limit = self._config.max_epochs
        if self._in_order and num_samples > len(self):
            raise DataError(f"split held_out has {len(self)} sequences, not {num_samples}")
        if limit is None or self._in_order:
            return
        for name, epochs in self.epochs(num_samples).items():
            if epochs > limit:
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

    def fill(self, sources: Indices, samples: Indices, rows: Rows) -> NDArray[np.int32] | None:
        """Fill a batch's rows; returns the documents' borders under `document_mask`."""
        places = zip(sources.tolist(), samples.tolist(), strict=True)
        for row, (source, sample) in enumerate(places):
            self.sources[source].fill(sample, rows, row)
        return rows.restart_positions() if self._config.document_mask else None

    def mask_documents(self, windows: NDArray[Any], rows: Rows) -> NDArray[np.int32] | None:
        """Do the same for rows whose tokens another hand fills, from windows [B, S + 1]."""
        if not self._config.document_mask:
            return None
        for row, window in enumerate(windows):
            rows.mark_ends(window[:-1] == self._eos_id, row)
        return rows.restart_positions()


class PairSamples(Samples):
    """A stream of pairs: sequences 2i and 2i + 1 are the two of pair i."""

    def __len__(self) -> int:
        """Return the number of different sequences."""
        return 2 * self._count

    def epochs(self, num_samples: int) -> dict[str, float]:
        """Return how often each source is read in the first `num_samples` sequences."""
        return super().epochs(num_samples // 2)

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
) -> Samples:
    """Open the sample stream that the `[data]` section describes.

    Raises:
        DataError: See `Loader`.
    """
    stores = _open_stores(config, vocab_size)
    sources = [
        source
        for index, store in enumerate(stores)
        for source in _open_sources(store, config, seq_len, split, examples, is_first=index == 0)
        if len(source)
    ]
    if not sources:
        tokens = sum(store.split(split).num_tokens for store in stores)
        raise DataError(
            f"{config.store}: split {split} has {tokens} tokens, too few for one sequence of"
            f" {seq_len + 1}: build from more text, or shorten train.seq_len"
        )
    phases = [] if split == HELD_OUT else _phases(config, stores, global_batch_size)
    blend = Blend([source.name for source in sources], phases) if phases else None
    files = json.dumps([info.sha256 for store in stores for info in store.manifest.files()])
    identity = {
        "files": hashlib.sha256(files.encode()).hexdigest(),
        "phases": phases,
        "packing": config.packing,
        "document_mask": config.document_mask,
        "seq_len": seq_len,
        "seed": config.seed,
        "split": split,
    }
    if examples != "text":
        identity |= {"examples": examples, "too_long": config.too_long}
    eos_id = stores[0].manifest.tokenizer.eos_id
    kind = PairSamples if examples == "pairs" else Samples
    return kind(sources, config, blend, split == HELD_OUT, eos_id, identity)


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


def _open_sources(
    store: Store,
    config: DataConfig,
    seq_len: int,
    split: SplitName,
    examples: Examples,
    *,
    is_first: bool,
) -> list[SequenceSource]:
    eos_id = store.manifest.tokenizer.eos_id if config.document_mask else None
    sources: list[SequenceSource] = []
    for stream in store.split(split).streams:
        source: SequenceSource
        if examples != "text":
            source = open_conversations(store, stream, split, seq_len, examples, config.too_long)
        elif config.packing == "concatenate":
            source = ChunkedStream(stream, seq_len, eos_id)
        elif stream.num_documents:
            source = PackedStream(store, stream, split, seq_len)
        else:
            continue
        if not is_first:
            source.name = f"{store.path.name}/{stream.name}"
        sources.append(source)
    return sources


def _phases(
    config: DataConfig, stores: Sequence[Store], global_batch_size: int
) -> list[tuple[int, dict[str, float]]]:
    """Return (first sample, weights) of each phase; none where every sample counts once."""
    weights = config.weights
    if weights is None and len(stores) == 1:
        recipe = {s.name: s.weight for s in stores[0].manifest.sources if s.weight is not None}
        weights = recipe or None
    if weights is None:
        if config.changes:
            raise DataError("data.changes needs data.weights to start from: set them")
        return []
    changes = [(change.step * global_batch_size, change.weights) for change in config.changes]
    return [(0, dict(weights)), *((start, dict(other)) for start, other in changes)]


def _source_seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"source {seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
