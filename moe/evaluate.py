"""Loss of a trained model on a store's split, as a whole and by source."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data.manifest import SplitName
from data.store import Store, TokenStream
from moe.errors import ConfigError
from moe.evaluation import Evaluation, loss_of
from moe.loaded_model import LoadedModel
from moe.model import document_inputs
from parallel.precision import Precision


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
    place = path or model.experiment.data.store
    if place is None:
        raise ConfigError(f"{model.run}: its experiment names no data.store: give one with --store")
    store = Store.open(place)
    ids, rows = store.manifest.tokenizer.vocab_size, model.config.vocab_size
    if ids > rows:
        raise ConfigError(f"{place}: its tokenizer has {ids} ids, the model {rows}: give another")
    return store


@torch.no_grad()
def evaluate(
    model: LoadedModel,
    store: Store,
    split: SplitName = "held_out",
    *,
    max_sequences: int | None = None,
    advance: Advance | None = None,
) -> Evaluation:
    """Measure the loss over a split, in sequences of the length the model was trained with.

    Documents lie end to end and are cut as in training. The remainder of each source that fills
    no sequence is left out.

    Args:
        model: The model.
        store: Its tokeniser must be the model's.
        split: Which split.
        max_sequences: Most sequences of each source, evenly spaced; None: all.
        advance: Told about progress.

    Raises:
        ConfigError: The split is too small for one sequence.
    """
    train = model.experiment.train
    streams = store.split(split).streams
    wanted = {s.name: _places(s, train.seq_len, max_sequences) for s in streams}
    total, done = sum(map(len, wanted.values())), 0
    if not total:
        raise ConfigError(
            f"{store.path}: split {split} has {store.split(split).num_tokens} tokens, too few for"
            f" one sequence of {train.seq_len + 1}: evaluate on another with --store or --split"
        )
    sums: dict[str, list[NDArray[np.float64]]] = {stream.name: [] for stream in streams}
    eos_id = store.manifest.tokenizer.eos_id if model.experiment.data.document_mask else None
    for stream in streams:
        for batch in _batches(stream, wanted[stream.name], train.seq_len, train.micro_batch_size):
            sums[stream.name].append(sequence_losses(model, batch, eos_id))
            done += len(batch)
            if advance is not None:
                advance(done, total)
    found = {name: np.concatenate(parts) for name, parts in sums.items() if parts}
    return Evaluation(
        split=split,
        total=loss_of(None, np.concatenate(list(found.values()))),
        sources=tuple(loss_of(name, rows) for name, rows in found.items()),
    )


def _places(stream: TokenStream, seq_len: int, most: int | None) -> NDArray[np.int64]:
    """Return the first token of each sequence to read."""
    count = max(0, (stream.num_tokens - 1) // seq_len)
    kept = count if most is None else min(count, most)
    return np.arange(kept, dtype=np.int64) * count // max(1, kept) * seq_len


def _batches(
    stream: TokenStream, places: NDArray[np.int64], seq_len: int, size: int
) -> Iterator[NDArray[np.int64]]:
    """Yield tokens [B, S + 1]: S inputs and, one further, their labels."""
    for start in range(0, len(places), size):
        rows = [stream.read(int(p), seq_len + 1) for p in places[start : start + size]]
        yield np.stack(rows).astype(np.int64)


def sequence_losses(
    model: LoadedModel, tokens: NDArray[np.int64], eos_id: int | None = None
) -> NDArray[np.float64]:
    """Return each sequence's loss sum (nats) and counted tokens, [B, 2], for tokens [B, S + 1].

    With `eos_id` documents see only themselves, and the step from one to the next is not counted.
    """
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    counted = np.ones(inputs.shape) if eos_id is None else (inputs != eos_id).astype(np.float64)
    borders = None if eos_id is None else torch.from_numpy(_borders(inputs == eos_id))
    device = model.device
    positions = torch.arange(inputs.shape[1], device=device).expand(inputs.shape)
    losses: torch.Tensor = model.chunk(
        torch.from_numpy(inputs).to(device),
        positions,
        labels=torch.from_numpy(labels).to(device),
        **document_inputs(borders, Precision()),
    )
    sums = (losses.double().cpu().numpy() * counted).sum(axis=1)
    return np.stack([sums, counted.sum(axis=1)], axis=1)


def _borders(is_end: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return documents' borders in rows laid end to end, given where documents end, [B, S]."""
    starts = np.zeros(is_end.size + 1, dtype=bool)
    starts[1:] = is_end.reshape(-1)
    starts[:: is_end.shape[1]] = True
    return np.flatnonzero(starts).astype(np.int32)
