"""Loss of a trained model on a store's split: overall and by source."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data.config import DataConfig
from data.loading.batch import Batch
from data.loading.sequence_sources import SequenceSource, open_sources
from data.store.manifest import SplitName
from data.store.reader import Store
from moe.errors import ConfigError
from moe.evaluation.loading import LoadedModel
from moe.evaluation.results import Evaluation, loss_of
from moe.model.document_masks import document_inputs
from moe.routing.maps import RoutingMaps
from moe.routing.record import RecordOrigin
from parallel.precision.recipes import Precision


class ReportProgress(Protocol):
    """Receives how many of all sequences are done."""

    def __call__(self, done: int, total: int) -> None:
        """Report `done` of `total` sequences."""


def open_store(model: LoadedModel, path: Any = None) -> Store:
    """Open the store a model is evaluated on: `path`, or the one it was trained on.

    Raises:
        ConfigError: Neither is named, or the tokenizer has more ids than the model.
        DataError: It is missing or damaged.
    """
    store_path = path or model.data.store
    if store_path is None:
        raise ConfigError(f"{model.run}: it names no data.store: give one with --store")
    store = Store.open(store_path)
    ids, rows = store.manifest.tokenizer.vocab_size, model.config.vocab_size
    if ids > rows:
        raise ConfigError(
            f"{store_path}: its tokenizer has {ids} ids, the model {rows}: give another"
        )
    return store


@dataclass(frozen=True)
class _SequenceGroup:
    """Sequences whose loss is summed together: a source, or one side of its pairs."""

    name: str
    source: SequenceSource
    indices: NDArray[np.int64]
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
            store: Its tokenizer must be the model's.
            split: Which split.
            max_sequences: Most sequences of each source, evenly spaced; None: all.

        Raises:
            ConfigError: The split is too small for one sequence.
            DataError: The store lacks an index that packing needs.
        """
        self.model, self.split, self._store_path = model, split, store.path
        chat = store.manifest.chat
        self._data = _data_for(model.data, chat is not None)
        sources = open_sources(
            store, self._data, model.seq_len, split, "text" if chat is None else chat.kind
        )
        self.groups = [
            group for source in sources for group in _sequence_groups(source, chat, max_sequences)
        ]
        if not any(group.indices.size for group in self.groups):
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
        return [group.name for group in self.groups]

    def maps(self) -> RoutingMaps:
        """Return routing maps that know the sources of what runs here."""
        model = self.model
        return RoutingMaps(model.config, [model.chunk], self.names, lambda: self.current_sources)

    def record_origin(self) -> RecordOrigin:
        """Describe a record of the routing of what runs here.

        Raises:
            ConfigError: The model is dense.
        """
        model, rule = self.model, self.model.config.moe
        if rule is None:
            raise ConfigError(f"{model.run}: a dense model routes nothing: no routing to record")
        return RecordOrigin(
            run=str(model.run),
            step=model.step,
            store=str(self._store_path),
            split=self.split,
            seq_len=model.seq_len,
            micro_batch_size=model.micro_batch_size,
            num_experts=rule.num_experts,
            top_k=rule.top_k,
        )

    @torch.no_grad()
    def run(self, report: ReportProgress | None = None) -> Evaluation:
        """Measure the loss, reporting progress."""
        total, done = sum(group.indices.size for group in self.groups), 0
        for number, group in enumerate(self.groups):
            group.losses.clear()
            for batch in self._batches(group):
                self.current_sources = torch.full((len(batch.tokens),), number)
                group.losses.append(sequence_losses(self.model, batch))
                done += len(batch.tokens)
                if report is not None:
                    report(done, total)
        losses = {group.name: np.concatenate(group.losses) for group in self.groups if group.losses}
        return Evaluation(
            split=self.split,
            total=loss_of(None, np.concatenate(list(losses.values()))),
            sources=tuple(loss_of(name, rows) for name, rows in losses.items()),
        )

    def _batches(self, group: _SequenceGroup) -> Iterator[Batch]:
        size = self.model.micro_batch_size
        for start in range(0, group.indices.size, size):
            indices = group.indices[start : start + size]
            batch = Batch.empty(indices.size, self.model.seq_len, False)
            rows = batch.rows()
            for row, index in enumerate(indices.tolist()):
                group.source.fill(index, rows, row)
            if self._data.document_mask:
                restarts = torch.from_numpy(rows.restart_positions())
                batch = Batch(**{**batch.__dict__, "cu_seqlens": restarts})
            yield batch


def _data_for(data: DataConfig, is_chat: bool) -> DataConfig:
    """Return how documents lie in sequences: as in training, where that was of the same kind."""
    if is_chat:
        return data.model_copy(update={"packing": "best_fit", "document_mask": True})
    return data


def _sequence_groups(source: SequenceSource, chat: Any, most: int | None) -> list[_SequenceGroup]:
    if chat is None or chat.kind == "conversations":
        return [_SequenceGroup(source.name, source, _spaced(len(source), most))]
    pairs = _spaced(len(source), most)
    return [
        _SequenceGroup(f"{source.name}/{name}", source, 2 * pairs + member)
        for member, name in enumerate(("chosen", "rejected"))
    ]


def _spaced(count: int, most: int | None) -> NDArray[np.int64]:
    selected = count if most is None else min(count, most)
    return np.arange(selected, dtype=np.int64) * count // max(1, selected)


def sequence_losses(model: LoadedModel, batch: Batch) -> NDArray[np.float64]:
    """Return each sequence's loss sum (nats) and counted tokens, [B, 2]."""
    device = model.device
    losses: torch.Tensor = model.chunk(
        batch.tokens.to(device),
        batch.position_ids.to(device),
        labels=batch.labels.to(device),
        padding_mask=None if batch.padding_mask is None else batch.padding_mask.to(device),
        **document_inputs(batch.cu_seqlens, Precision()),
    )
    counted = batch.loss_mask.double().numpy()
    sums = (losses.double().cpu().numpy() * counted).sum(axis=1)
    return np.stack([sums, counted.sum(axis=1)], axis=1)
