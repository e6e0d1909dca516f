"""Loss of a trained model on a store's split, as a whole and by source."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data.config import DataConfig
from data.loading.batch import Batch
from data.loading.samples import SequenceSource, open_sources
from data.store.manifest import SplitName
from data.store.reader import Store
from moe.errors import ConfigError
from moe.evaluation.loading import LoadedModel
from moe.evaluation.results import Evaluation, loss_of
from moe.model.build import document_inputs
from moe.routing.maps import RoutingMaps
from parallel.precision.recipes import Precision


class Advance(Protocol):
    """Is told how many sequences are done, of how many."""

    def __call__(self, done: int, total: int) -> None:
        """Take note."""


def open_store(model: LoadedModel, path: Any = None) -> Store:
    """Open the store a model is evaluated on: `path`, or the one it was trained on.

    Raises:
        ConfigError: Neither is named, or the tokeniser has more ids than the model.
        DataError: It is missing or damaged.
    """
    place = path or model.data.store
    if place is None:
        raise ConfigError(f"{model.run}: it names no data.store: give one with --store")
    store = Store.open(place)
    ids, rows = store.manifest.tokenizer.vocab_size, model.config.vocab_size
    if ids > rows:
        raise ConfigError(f"{place}: its tokenizer has {ids} ids, the model {rows}: give another")
    return store


@dataclass(frozen=True)
class _Part:
    """Sequences that are counted together."""

    name: str
    source: SequenceSource
    places: NDArray[np.int64]
    losses: list[NDArray[np.float64]] = field(default_factory=list)
    """[B, 2] of each batch: loss sums and tokens."""


class Evaluator:
    """The sequences of a store's split, as a model was trained to see such."""

    def __init__(
        self,
        model: LoadedModel,
        store: Store,
        split: SplitName = "held_out",
        *,
        max_sequences: int | None = None,
    ) -> None:
        """Choose the sequences.

        Text lies end to end, or packed, and is cut as in training; of conversations only answers
        count; of pairs the chosen and the rejected answers are counted apart. The remainder of a
        source that fills no sequence is left out.

        Args:
            model: The model.
            store: Its tokeniser must be the model's.
            split: Which split.
            max_sequences: Most sequences of each source, evenly spaced; None: all.

        Raises:
            ConfigError: The split is too small for one sequence.
            DataError: The store lacks an index that packing needs.
        """
        self.model, self.split = model, split
        chat = store.manifest.chat
        self._data = _data_for(model.data, chat is not None)
        sources = open_sources(
            store, self._data, model.seq_len, split, "text" if chat is None else chat.kind
        )
        self.parts = [part for source in sources for part in _parts(source, chat, max_sequences)]
        if not any(part.places.size for part in self.parts):
            raise ConfigError(
                f"{store.path}: split {split} has {store.split(split).num_tokens} tokens, too few"
                f" for one sequence of {model.seq_len + 1}: evaluate on another with --store or"
                " --split"
            )
        self.current_sources = torch.zeros(1, dtype=torch.int64)
        """Sources of the sequences that are running, int64 [B]."""

    @property
    def names(self) -> list[str]:
        """Names of the sources."""
        return [part.name for part in self.parts]

    def maps(self) -> RoutingMaps:
        """Return routing maps that know the sources of what runs here."""
        model = self.model
        return RoutingMaps(model.config, [model.chunk], self.names, lambda: self.current_sources)

    @torch.no_grad()
    def run(self, advance: Advance | None = None) -> Evaluation:
        """Measure the loss; `advance` is told about progress."""
        total, done = sum(part.places.size for part in self.parts), 0
        for number, part in enumerate(self.parts):
            part.losses.clear()
            for batch in self._batches(part):
                self.current_sources = torch.full((len(batch.tokens),), number)
                part.losses.append(sequence_losses(self.model, batch))
                done += len(batch.tokens)
                if advance is not None:
                    advance(done, total)
        found = {part.name: np.concatenate(part.losses) for part in self.parts if part.losses}
        return Evaluation(
            split=self.split,
            total=loss_of(None, np.concatenate(list(found.values()))),
            sources=tuple(loss_of(name, rows) for name, rows in found.items()),
        )

    def _batches(self, part: _Part) -> Iterator[Batch]:
        size = self.model.micro_batch_size
        for start in range(0, part.places.size, size):
            places = part.places[start : start + size]
            batch = Batch.empty(places.size, self.model.seq_len, False)
            rows = batch.rows()
            for row, place in enumerate(places.tolist()):
                part.source.fill(place, rows, row)
            if self._data.document_mask:
                borders = torch.from_numpy(rows.restart_positions())
                batch = Batch(**{**batch.__dict__, "cu_seqlens": borders})
            yield batch


def evaluate(
    model: LoadedModel,
    store: Store,
    split: SplitName = "held_out",
    *,
    max_sequences: int | None = None,
    advance: Advance | None = None,
) -> Evaluation:
    """Measure the loss over a split; see `Evaluator`."""
    return Evaluator(model, store, split, max_sequences=max_sequences).run(advance)


def _data_for(data: DataConfig, is_chat: bool) -> DataConfig:
    """Return how documents lie in sequences: as in training, where that was of the same kind."""
    if is_chat:
        return data.model_copy(update={"packing": "best_fit", "document_mask": True})
    return data


def _parts(source: SequenceSource, chat: Any, most: int | None) -> list[_Part]:
    if chat is None or chat.kind == "conversations":
        return [_Part(source.name, source, _spaced(len(source), most))]
    pairs = _spaced(len(source), most)
    return [
        _Part(f"{source.name}/{name}", source, 2 * pairs + member)
        for member, name in enumerate(("chosen", "rejected"))
    ]


def _spaced(count: int, most: int | None) -> NDArray[np.int64]:
    kept = count if most is None else min(count, most)
    return np.arange(kept, dtype=np.int64) * count // max(1, kept)


def sequence_losses(model: LoadedModel, batch: Batch) -> NDArray[np.float64]:
    """Return each sequence's loss sum (nats) and counted tokens, [B, 2]."""
    device = model.device
    losses: torch.Tensor = model.chunk(
        batch.tokens.to(device),
        batch.position_ids.to(device),
        labels=batch.labels.to(device),
        **document_inputs(batch.cu_seqlens, Precision()),
    )
    counted = batch.loss_mask.double().numpy()
    sums = (losses.double().cpu().numpy() * counted).sum(axis=1)
    return np.stack([sums, counted.sum(axis=1)], axis=1)
