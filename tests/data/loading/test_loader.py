import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.config import DataConfig
from data.errors import DataError
from data.loading.loader import Loader
from data.loading.order import permuted
from data.store.manifest import HELD_OUT, TRAIN, Manifest
from data.store.reader import Store
from tests.support.loader_helpers import GLOBAL_BATCH, S, make, restarted, rows, stream_hash


def slow_reference(store: Path, seed: int, count: int) -> np.ndarray:
    """The stream from the definition: all tokens in memory, cut, visited in the keyed order."""
    stream = Store.open(store).split(TRAIN).streams[0]
    tokens = stream.read(0, stream.num_tokens).astype(np.int64)
    num_samples = (tokens.size - 1) // S
    samples = []
    for position in range(count):
        epoch, offset = divmod(position, num_samples)
        sample = int(permuted(np.array([offset]), num_samples, seed, epoch)[0])
        samples.append(tokens[sample * S : sample * S + S + 1])
    return np.stack(samples)


def test_stream_is_the_definition(byte_store: Path) -> None:
    loader = make(byte_store, seed=3, micro_batch_size=4)
    batches = [batch for step in range(40) for batch in loader.step(step)]
    expected = slow_reference(byte_store, 3, 40 * GLOBAL_BATCH)
    assert 2 * loader.num_sequences < 40 * GLOBAL_BATCH  # more than two epochs
    assert np.array_equal(rows(batches), expected[:, :-1])
    assert np.array_equal(np.concatenate([b.labels.numpy() for b in batches]), expected[:, 1:])
    loader.close()


def test_shapes_types_and_masks(byte_store: Path) -> None:
    loader = make(byte_store, micro_batch_size=4)
    batches = loader.step(0)
    assert len(batches) == GLOBAL_BATCH // 4
    for batch in batches:
        for tensor in (batch.tokens, batch.labels, batch.loss_mask, batch.position_ids):
            assert tensor.shape == (4, S)
        assert batch.tokens.dtype == batch.labels.dtype == batch.position_ids.dtype == torch.int64
        assert batch.loss_mask.dtype == torch.float32 and bool((batch.loss_mask == 1).all())
        assert torch.equal(batch.position_ids, torch.arange(S).expand(4, S))
        assert batch.cu_seqlens is None
    loader.close()


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_ranks_do_not_change_the_stream(byte_store: Path, ranks: int) -> None:
    assert stream_hash(byte_store, 12, ranks) == stream_hash(byte_store, 12, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch_size": 12},
        {"prefetch_steps": 0},
        {"prefetch_steps": 7},
        {"prefetch_steps": 6, "workers": 4},
        {"pin_memory": False},
    ],
)
def test_readers_do_not_change_the_stream(byte_store: Path, changes: dict[str, int]) -> None:
    assert stream_hash(byte_store, 12, 1, **changes) == stream_hash(byte_store, 12, 1)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_restart_continues_the_stream(byte_store: Path, stop: int) -> None:
    first = make(byte_store)
    before = [rows(first.step(step)) for step in range(stop)]
    second = restarted(first, byte_store, micro_batch_size=2)
    after = [rows(second.step(step)) for step in range(stop, 12)]
    second.close()
    digest = hashlib.sha256(np.concatenate(before + after).tobytes()).hexdigest()
    assert digest == stream_hash(byte_store, 12, 1)


def test_steps_may_be_asked_in_any_order(byte_store: Path) -> None:
    loader = make(byte_store)
    forward = [rows(loader.step(step)) for step in range(6)]
    backward = [rows(loader.step(step)) for step in reversed(range(6))]
    assert all(np.array_equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    loader.close()


def test_state_is_small(byte_store: Path) -> None:
    loader = make(byte_store)
    loader.step(10**9)
    assert len(json.dumps(loader.state_dict())) <= 200
    loader.close()


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"seq_len": 16}, {"global_batch_size": 12}, {"document_mask": True}]
)
def test_state_of_another_stream_is_refused(byte_store: Path, changes: dict[str, int]) -> None:
    state = make(byte_store, prefetch_steps=0).state_dict()
    with pytest.raises(DataError, match="another sample stream"):
        make(byte_store, prefetch_steps=0, **changes).load_state_dict(state)


def test_held_out_is_read_once_in_order(byte_store: Path) -> None:
    loader = make(byte_store, split=HELD_OUT, global_batch_size=2)
    steps = loader.num_sequences // 2
    found = np.concatenate([rows(loader.step(step)) for step in range(steps)]).reshape(-1)
    stream = Store.open(byte_store).split(HELD_OUT).streams[0]
    assert np.array_equal(found, stream.read(0, steps * 2 * S))
    with pytest.raises(DataError, match="held_out has"):
        loader.step(loader.num_sequences)
    loader.close()


def test_document_masks_restart_positions_and_skip_the_border(byte_store: Path) -> None:
    loader = make(byte_store, document_mask=True, micro_batch_size=6)
    eos = Manifest.read(byte_store).tokenizer.eos_id
    borders_seen = 0
    for batch in loader.step(0):
        tokens = batch.tokens.numpy()
        borders = [0]
        for row in range(6):
            position = 0
            for column in range(S):
                assert batch.position_ids[row, column] == position
                ends = tokens[row, column] == eos
                assert batch.loss_mask[row, column] == (0 if ends else 1)
                position = 0 if ends else position + 1
                if ends or column == S - 1:
                    borders.append(row * S + column + 1)
        assert batch.cu_seqlens is not None and batch.cu_seqlens.dtype == torch.int32
        assert batch.cu_seqlens.tolist() == borders
        borders_seen += len(borders)
    assert borders_seen > GLOBAL_BATCH + GLOBAL_BATCH // 6
    loader.close()


def test_repeats_stop_at_max_epochs(byte_store: Path) -> None:
    loader = make(byte_store, max_epochs=2, prefetch_steps=0)
    last = 2 * loader.num_sequences // GLOBAL_BATCH - 1
    loader.step(last)
    with pytest.raises(DataError, match=r"beyond data\.max_epochs=2"):
        loader.step(last + 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 256}, r"257 ids but model\.vocab_size=256"),
        ({"seq_len": 100_000}, "too few tokens for one sequence"),
        ({"data_parallel_size": 5}, "not divisible"),
    ],
)
def test_wrong_sizes_are_explained(byte_store: Path, changes: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(byte_store, **changes)


def test_missing_store_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="moe data build"):
        make(tmp_path / "none")
    with pytest.raises(DataError, match=r"data\.store is not set"):
        Loader(DataConfig(), seq_len=1, global_batch_size=1, micro_batch_size=1)


def test_waiting_is_measured(byte_store: Path) -> None:
    loader = make(byte_store, prefetch_steps=0)
    assert loader.stall_seconds == 0
    loader.step(0)
    once = loader.stall_seconds
    loader.step(1)
    assert 0 < once < loader.stall_seconds
