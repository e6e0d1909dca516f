"""Best-fit packing: the algorithm, the index, what it costs, and the rows it gives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from data.cli import commands
from data.errors import DataError
from data.loading import packing
from data.loading.packing import best_fit, pack_store
from data.store.manifest import HELD_OUT, TRAIN
from data.store.reader import Store
from tests.support.loader_helpers import build_sources, make

S = 32
TEXTS = {
    "short": [f"{i}" for i in range(150)],
    "long": [f"{i} " + "abcdefghij" * (20 + i) for i in range(12)],
    "mixed": [f"{i} " + "x" * (7 * i % 90) for i in range(80)],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = build_sources(tmp_path_factory.mktemp("packing") / "store", TEXTS, held_out_fraction=0.1)
    pack_store(Store.open(path), S)
    return path


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Best-fit decreasing from its definition: bins filled so far, pieces placed singly."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [(free, number) for number, free in enumerate(room) if free >= length]
        if fitting:
            room[min(fitting)[1]] -= length
        else:
            room.append(capacity - length)
    return sorted(capacity - free for free in room)


@given(st.integers(1, 40), st.data())
def test_best_fit_is_its_definition(capacity: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=120))
    bins = best_fit(np.array(lengths, dtype=np.int64), capacity)
    fills = np.bincount(bins, weights=lengths).astype(int) if lengths else np.zeros(0, int)
    assert (fills > 0).all() and (fills <= capacity).all()
    assert sorted(fills.tolist()) == one_by_one(lengths, capacity)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 50))
def test_pieces_cover_every_position_once(sizes: list[int], seq_len: int) -> None:
    end = np.cumsum(sizes)
    begin = end - sizes
    starts, lengths, per_sequence = packing._packed(begin, end, seq_len)
    assert per_sequence.sum() == starts.size and (lengths <= seq_len).all()
    covered = [p for s, n in zip(starts, lengths, strict=True) for p in range(s, s + n)]
    wanted = [p for b, e in zip(begin, end, strict=True) for p in range(b, e - 1)]
    assert sorted(covered) == wanted
    ends = np.cumsum(per_sequence)
    sums = np.add.reduceat(lengths, ends - per_sequence) if ends.size else np.zeros(0)
    assert (sums <= seq_len).all()


def positions_of(store: Path, source: str) -> int:
    stream = next(s for s in Store.open(store).split(TRAIN).streams if s.name == source)
    return stream.num_tokens - stream.num_documents


@pytest.mark.parametrize("source", TEXTS)
def test_every_pair_is_learned_once_and_whole_documents_stay_whole(
    store: Path, source: str
) -> None:
    """From the rows alone: documents are put together again and compared with the text."""
    weights = {source: 1}
    loader = make(store, packing="best_fit", document_mask=True, weights=weights, prefetch_steps=0,
                  global_batch_size=1)  # fmt: skip
    eos = Store.open(store).manifest.tokenizer.eos_id
    sequences = loader.describe(1)[source]["sequences"]
    learned, pieces = 0, []
    for step in range(sequences):
        (batch,) = loader.step(step)
        tokens, labels = batch.tokens[0].tolist(), batch.labels[0].tolist()
        mask, place = batch.loss_mask[0].tolist(), batch.position_ids[0].tolist()
        learned += int(sum(mask))
        assert batch.lengths.tolist() == [int(sum(mask))]
        assert batch.cu_seqlens is not None
        borders = batch.cu_seqlens.tolist()
        assert borders[0] == 0 and borders[-1] == S
        assert int(batch.document_lengths.sum()) == int(sum(mask))
        assert batch.document_lengths.tolist() == [
            end - begin for begin, end in zip(borders, borders[1:], strict=False) if mask[begin]
        ]
        padding = torch.tensor(mask) == 0
        assert (batch.padding_mask is not None) == bool(padding.any())
        assert batch.padding_mask is None or batch.padding_mask[0].tolist() == padding.tolist()
        for begin, end in zip(borders, borders[1:], strict=False):
            assert place[begin:end] == list(range(end - begin))
            if mask[begin]:
                assert tokens[begin + 1 : end] == labels[begin : end - 1]
                pieces.append([*tokens[begin:end], labels[end - 1]])
            else:  # padding, outside the loss
                assert not any(mask[begin:end]) and set(tokens[begin:end]) == {eos}
    assert learned == positions_of(store, source)
    stream = next(s for s in Store.open(store).split(TRAIN).streams if s.name == source)
    starts = np.concatenate([[0], stream.ends[:-1]])
    short = [
        stream.read(int(b), int(e - b)).tolist()
        for b, e in zip(starts, stream.ends, strict=True)
        if e - b - 1 <= S
    ]
    assert sorted(p for p in pieces if p[-1] == eos and len(p) - 1 <= S and p in short) == sorted(
        short
    )


def test_the_report_is_counted_from_the_rows(store: Path) -> None:
    loader = make(store, packing="best_fit", prefetch_steps=0)
    for source, shown in loader.describe(10).items():
        stream = next(s for s in Store.open(store).split(TRAIN).streams if s.name == source)
        lengths = np.diff(stream.ends, prepend=0) - 1
        padding = 1 - lengths.sum() / (shown["sequences"] * S)
        assert shown["padding_share"] == pytest.approx(padding)
        assert shown["cut_share"] == pytest.approx((lengths > S).mean())
    assert loader.describe(10)["long"]["cut_share"] == 1
    assert loader.describe(10)["short"]["cut_share"] == 0


def test_documents_that_chunking_cuts_are_counted(store: Path) -> None:
    for info in pack_store(Store.open(store), S):
        stream = next(s for s in Store.open(store).split(info.split).streams
                      if s.name == info.source)  # fmt: skip
        starts = np.concatenate([[0], stream.ends[:-1]])
        cut = [
            len({p // S for p in range(b, e - 1)}) > 1
            for b, e in zip(starts.tolist(), stream.ends.tolist(), strict=True)
        ]
        assert info.cut_share_concatenated == pytest.approx(np.mean(cut))


def test_windows_give_what_one_window_gives(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "WINDOW_DOCUMENTS", 7)
    monkeypatch.setattr(packing, "BATCH_SEQUENCES", 3)
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    infos = {(i.source, i.split): i for i in pack_store(Store.open(copy), S)}
    loader = make(copy, packing="best_fit", weights={"mixed": 1}, prefetch_steps=0,
                  global_batch_size=1)  # fmt: skip
    count = loader.describe(1)["mixed"]["sequences"]
    assert count == infos["mixed", TRAIN].index.rows
    learned = sum(float(loader.step(step)[0].loss_mask.sum()) for step in range(count))
    assert learned == positions_of(copy, "mixed")


def test_documents_of_one_token_give_no_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = (np.zeros(0, np.int64),) * 2
    assert [part.size for part in packing._packed(*empty, S)] == [0, 0, 0]
    one = np.arange(3)
    assert [part.size for part in packing._packed(one, one + 1, S)] == [0, 0, 0]


def test_the_command_tells_what_packing_costs(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    done = CliRunner().invoke(commands.app, ["pack", str(copy), "--seq-len", "64", "--json"])
    assert done.exit_code == 0, done.output
    shown = {(row["source"], row["split"]): row for row in json.loads(done.output)}
    assert 0 < shown["mixed", TRAIN]["padding_share"] < 0.2
    assert shown["mixed", TRAIN]["cut_share"] < shown["mixed", TRAIN]["cut_share_concatenated"]
    text = CliRunner().invoke(commands.app, ["pack", str(copy), "--seq-len", "64"]).output
    assert len(text.splitlines()) == len(shown)
    assert "padding" in text and "of documents cut (end to end:" in text


def test_a_missing_index_names_the_command(store: Path) -> None:
    with pytest.raises(DataError, match=r"run `moe data pack .*--seq-len 16`"):
        make(store, packing="best_fit", seq_len=16)


def test_an_index_of_another_store_is_refused(store: Path, tmp_path: Path) -> None:
    other = build_sources(tmp_path / "other", {"mixed": ["some text", "and more"] * 3})
    shutil.copytree(store / "packing", other / "packing")
    with pytest.raises(DataError, match="made from another store"):
        make(other, packing="best_fit")
    for path in (other / "packing").glob("*.json"):
        path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match="damaged"):
        make(other, packing="best_fit")


def test_held_out_is_packed_as_well(store: Path) -> None:
    loader = make(store, packing="best_fit", split=HELD_OUT, global_batch_size=1)
    learned = sum(int(loader.step(i)[0].loss_mask.sum()) for i in range(loader.num_sequences))
    split = Store.open(store).split(HELD_OUT)
    assert learned == split.num_tokens - split.num_documents
    loader.close()
