"""Which sequence is sample i of a run, and how it fills a row of a batch."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.config import DataConfig
from data.errors import DataError
from data.loading.blend import Blend
from data.loading.order import shuffled
from data.loading.packing import PackedStream
from data.loading.row_buffers import RowBuffers
from data.loading.sequence_sources import SequenceSource

Indices = NDArray[np.int64]
RowLocations = tuple[Indices, Indices]
"""Source and sequence of each row, int64 [rows] each."""


class SampleStream:
    """The stream of samples: endless and reshuffled (train), or once in stored order (held out)."""

    sequences_per_example = 1
    """Sequences of one training example."""

    def __init__(
        self,
        sources: Sequence[SequenceSource],
        config: DataConfig,
        blend: Blend | None,
        *,
        in_order: bool,
        dtype: str,
        identity: dict[str, Any],
        former_identity: dict[str, Any],
    ) -> None:
        self.sources = sources
        self.dtype = dtype
        """Type of the stored tokens."""
        self._config, self._blend, self._in_order = config, blend, in_order
        self._identity = identity
        self.former_identity = former_identity
        """What differs in checkpoints from when the table of dropped documents still counted."""
        self._sizes = np.array([len(source) for source in sources], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._count = int(self._starts[-1])
        self._seeds = [_source_seed(config.seed, source.name) for source in sources]

    def __len__(self) -> int:
        """Return the number of distinct sequences."""
        return self.sequences_per_example * self._count

    def identity(self, num_samples: int) -> dict[str, Any]:
        """Return everything the first `num_samples` samples depend on, as JSON values."""
        phases = (
            None
            if self._blend is None
            else self._blend.phases(num_samples // self.sequences_per_example)
        )
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
        """Return the epochs of each source in the first `num_samples` samples."""
        examples = num_samples // self.sequences_per_example
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
        """Return source and sequence of each sample, int64 [positions] each; positions increase."""
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
        """Fill the rows of a batch; returns `cu_seqlens` under `document_mask`, else None."""
        locations = zip(sources.tolist(), samples.tolist(), strict=True)
        for row, (source, sample) in enumerate(locations):
            self.sources[source].fill(sample, rows, row)
        return rows.restart_positions() if self._config.document_mask else None


class PairSampleStream(SampleStream):
    """A stream of pairs: sequences 2i and 2i + 1 are the chosen and the rejected one of pair i."""

    sequences_per_example = 2

    def _locate(self, positions: Indices) -> tuple[Indices, Indices]:
        sources, pairs = super()._locate(positions[::2] // 2)
        return sources.repeat(2), 2 * pairs.repeat(2) + positions % 2


def _source_seed(seed: int, name: str) -> int:
    digest = hashlib.blake2b(f"source {seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
