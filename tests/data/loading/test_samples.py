"""Runs of several sources: blends, changes on the way, repeats, stores that grow and join."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.loading.blend import Blend
from data.loading.order import permuted
from data.loading.sample_stream import _source_seed
from data.store.manifest import HELD_OUT, TRAIN
from data.store.reader import Store
from data.store.writer import is_held_out
from tests.support.loader_helpers import (
    GLOBAL_BATCH,
    S,
    build_sources,
    make,
    restarted,
    rows,
    stream_hash,
)
from tests.support.store_helpers import build

SOURCES = {
    name: [" ".join(f"{name}{i}.{j}" for j in range(20 + 2 * i)) for i in range(20)]
    for name in ("web", "code", "math")
}
WEIGHTS = {"web": 0.5, "code": 0.3, "math": 0.2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streams") / "store"
    return build_sources(path, SOURCES, held_out_fraction=0.1)


def read(store: Path, steps: int, **changes: Any) -> np.ndarray:
    loader = make(store, prefetch_steps=0, **changes)
    found = np.concatenate([rows(loader.step(step)) for step in range(steps)])
    loader.close()
    return found


def expected(store: Path, phases: list[tuple[int, dict[str, float]]], count: int) -> np.ndarray:
    """The stream from its definition: the blend, then each source's own order, epoch by epoch."""
    streams = Store.open(store).split(TRAIN).streams
    sources, ordinals = Blend([s.name for s in streams], phases).locate(np.arange(count))
    found = []
    for source, ordinal in zip(sources.tolist(), ordinals.tolist(), strict=True):
        stream = streams[source]
        size = (stream.num_tokens - 1) // S
        epoch, offset = divmod(ordinal, size)
        seed = _source_seed(0, stream.name)
        sample = int(permuted(np.array([offset]), size, seed, epoch)[0])
        found.append(stream.read(sample * S, S))
    return np.stack(found)


def test_a_blend_is_its_definition(store: Path) -> None:
    found = read(store, 10, weights=WEIGHTS)
    assert np.array_equal(found, expected(store, [(0, WEIGHTS)], 10 * GLOBAL_BATCH))


def test_a_change_comes_at_its_step(store: Path) -> None:
    changes = [{"step": 4, "weights": {"math": 1}}, {"step": 7, "weights": {"web": 1, "code": 3}}]
    found = read(store, 10, weights=WEIGHTS, changes=changes)
    phases = [(0, WEIGHTS), *((c["step"] * GLOBAL_BATCH, c["weights"]) for c in changes)]
    assert np.array_equal(found, expected(store, phases, 10 * GLOBAL_BATCH))  # type: ignore[arg-type]
    for row in found[4 * GLOBAL_BATCH : 7 * GLOBAL_BATCH]:
        assert b"math" in bytes(row.clip(0, 255).astype(np.uint8))


def test_recipe_weights_are_the_default(tmp_path: Path) -> None:
    path = build_sources(
        tmp_path / "store", SOURCES, source_weights={"web": 5, "code": 3, "math": 2}
    )
    assert np.array_equal(read(path, 6), read(path, 6, weights=WEIGHTS))
    loader = make(path, weights={"code": 1}, prefetch_steps=0)
    assert loader.describe(5)["web"]["epochs"] == 0


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("more", [{}, {"workers": 3, "prefetch_steps": 4}])
def test_blends_have_one_stream_for_any_readers(
    store: Path, ranks: int, more: dict[str, int]
) -> None:
    changes = {"weights": WEIGHTS, "changes": [{"step": 3, "weights": {"code": 1}}]}
    assert stream_hash(store, 6, ranks, **changes, **more) == stream_hash(store, 6, **changes)


def test_a_run_on_its_way_may_change_its_blend(store: Path) -> None:
    """Stopped at 4: a change from 6 on is taken, a change of the past is refused."""
    first = make(store, weights=WEIGHTS)
    begun = [rows(first.step(step)) for step in range(4)]
    later = [{"step": 6, "weights": {"web": 1}}]
    second = restarted(first, store, weights=WEIGHTS, changes=later)
    rest = [rows(second.step(step)) for step in range(4, 9)]
    whole = read(store, 9, weights=WEIGHTS, changes=later)
    assert np.array_equal(np.concatenate(begun + rest), whole)
    for refused in (
        {"weights": {**WEIGHTS, "web": 0.6}, "changes": later},
        {"weights": WEIGHTS, "changes": [{"step": 8, "weights": {"web": 1}}]},  # past: 9 are read
        {"changes": later, "weights": {"web": 1}},
    ):
        with pytest.raises(DataError, match="another sample stream: up to sample 216"):
            restarted(second, store, **refused)
    assert restarted(second, store, weights={"web": 5, "code": 3, "math": 2}, changes=later)
    at_nine = [*later, {"step": 9, "weights": {"code": 1}}]
    assert restarted(second, store, weights=WEIGHTS, changes=at_nine)


def test_state_stays_small_and_resuming_reads_nothing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"source-{i:02d}": [f"{i} {j} " * 60 for j in range(3)] for i in range(20)}
    path = build_sources(tmp_path / "store", many, held_out_fraction=0.0)
    weights = dict.fromkeys(many, 1.0)
    loader = make(path, weights=weights, prefetch_steps=0,
                  changes=[{"step": 10**8, "weights": weights}])  # fmt: skip
    loader.step(10**12)
    state = json.dumps(loader.state_dict())
    assert len(state) <= 200
    reads: list[int] = []
    from data.store.reader import TokenStream

    kept = TokenStream.read
    monkeypatch.setattr(
        TokenStream, "read", lambda self, *args: reads.append(1) or kept(self, *args)
    )
    other = restarted(
        loader, path, weights=weights, prefetch_steps=0,
        changes=[{"step": 10**8, "weights": weights}],
    )  # fmt: skip
    assert not reads
    other.step(10**12 + 1)
    assert len(reads) <= 2 * GLOBAL_BATCH


def test_repeats_are_told_and_capped_by_source(store: Path) -> None:
    loader = make(store, weights={"web": 0.9, "math": 0.1}, prefetch_steps=0)
    told = loader.describe(50)
    assert told["code"]["epochs"] == 0
    assert told["web"]["epochs"] == pytest.approx(
        0.9 * 50 * GLOBAL_BATCH / told["web"]["sequences"], rel=0.01
    )
    counted: Counter[bytes] = Counter(row.tobytes() for row in read(store, 50, weights={"web": 1}))
    epochs = make(store, weights={"web": 1}, prefetch_steps=0).describe(50)["web"]["epochs"]
    assert set(counted.values()) <= {int(epochs), int(epochs) + 1}
    limits = {"web": 1.0}
    capped = make(store, weights={"web": 0.5, "code": 0.5}, max_epochs=limits, prefetch_steps=0)
    last = int(2 * told["web"]["sequences"] / GLOBAL_BATCH)
    capped.check_steps(last)
    with pytest.raises(DataError, match=r"source 'web' would be read .* data\.max_epochs=1\.0"):
        capped.check_steps(last + 2)
    with pytest.raises(DataError, match="no source 'news'; there are web, code, math"):
        make(store, max_epochs={"news": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"news": 1}}, "no source 'news'; there are web, code, math"),
        ({"changes": [{"step": 1, "weights": {"web": 1}}]}, r"data\.changes needs data\.weights"),
        ({"seq_len": 100_000}, "too few tokens for one sequence"),
    ],
)
def test_wrong_blends_are_explained(store: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(store, **changes)


def test_a_source_below_one_sequence_is_left_out_and_told(tmp_path: Path) -> None:
    sources = {"big": [f"{i} " * 200 for i in range(9)], "tiny": ["word"]}
    path = build_sources(tmp_path / "store", sources, held_out_fraction=0.0)
    loader = make(path, prefetch_steps=0)
    assert loader.describe(3)["tiny"] == {"sequences": 0, "epochs": 0.0}
    assert loader.describe(3)["big"]["epochs"] > 0
    rows(loader.step(0))
    with pytest.raises(DataError, match="source 'tiny' has a weight, but too few tokens"):
        make(path, weights={"big": 1, "tiny": 1})


def test_a_store_without_held_out_documents_trains(tmp_path: Path) -> None:
    path = build_sources(tmp_path / "store", SOURCES, held_out_fraction=0.0)
    assert make(path, split=HELD_OUT).num_sequences == 0


def test_stores_join_under_names_of_their_own(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "more"
    shutil.copytree(store, other)
    loader = make(store, more_stores=[other], prefetch_steps=0)
    assert list(loader.describe(1)) == ["web", "code", "math", "more/web", "more/code", "more/math"]
    twin = tmp_path / "elsewhere" / "more"
    shutil.copytree(store, twin)
    with pytest.raises(DataError, match="two of their folders have one name"):
        make(store, more_stores=[other, twin])


def test_a_moved_store_continues(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "moved")
    loader = make(store)
    loader.step(0)
    other = restarted(loader, tmp_path / "moved")
    assert np.array_equal(rows(other.step(1)), read(store, 2)[GLOBAL_BATCH:])
    other.close()


def test_a_store_of_the_same_tokens_under_another_path_continues(tmp_path: Path) -> None:
    """The table of dropped documents holds paths, but no sample depends on it."""
    stores = []
    for name in ("one", "another"):
        folder = tmp_path / name
        folder.mkdir()
        for twin in ("a", "b"):
            (folder / f"{twin}.txt").write_text("x y z\n" * 4000)
        build(folder / "store", folder)
        stores.append(folder / "store")
    dropped = [(store / "dropped.arrow").read_bytes() for store in stores]
    assert dropped[0] != dropped[1]
    loader = make(stores[0])
    loader.step(0)
    other = restarted(loader, stores[1])
    assert np.array_equal(rows(other.step(1)), read(stores[0], 2)[GLOBAL_BATCH:])
    other.close()


def test_a_checkpoint_from_when_the_dropped_table_counted_continues(store: Path) -> None:
    loader = make(store, prefetch_steps=0)
    former = loader._fingerprint(0, **loader._samples.former_identity)
    assert former != loader.state_dict()["fingerprint"]
    loader.load_state_dict({"next_sample": 0, "fingerprint": former})


@settings(max_examples=200)
@given(st.binary(min_size=16, max_size=16), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_share_holds_out_what_a_smaller_did(digest: bytes, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert is_held_out(digest, low) <= is_held_out(digest, high)


@pytest.mark.parametrize("seq_len", [1, 2, 5])
def test_sequences_shorter_than_documents_and_of_one_token(store: Path, seq_len: int) -> None:
    loader = make(store, seq_len=seq_len, document_mask=True, prefetch_steps=0)
    for batch in loader.step(0):
        assert batch.tokens.shape == (1, seq_len)
        assert batch.cu_seqlens is not None
        assert batch.cu_seqlens[0] == 0 and batch.cu_seqlens[-1] == seq_len


def test_golden_stream(tmp_path: Path) -> None:
    """What a given store, seed and blend give never changes between releases."""
    sources = {
        "a": [f"first {i} " * 9 for i in range(30)],
        "b": [f"second {i} " * 9 for i in range(30)],
    }
    path = build_sources(tmp_path / "store", sources, held_out_fraction=0.0)
    plain = stream_hash(path, 8, seed=1)
    blended = stream_hash(
        path, 8, weights={"a": 2, "b": 1}, changes=[{"step": 5, "weights": {"b": 1}}]
    )
    assert (plain, blended) == GOLDEN


GOLDEN = (
    "0c6fe44c1401c180cee2bb24e10760046b5deff1c33387c214c5a8b30e85cf62",
    "b812bb0adffda43b7d774e8e3f6295cc11710699b0bcd37be1840c2b2cc3d69c",
)
