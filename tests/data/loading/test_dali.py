"""The DALI feed gives the plain loader's batches to the bit; without a GPU too."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from data.chat.build import build_chat_store
from data.loading.batch import Batch
from data.loading.packing import pack_store
from data.store.manifest import HELD_OUT
from data.store.reader import Store
from tests.support.loader_helpers import GLOBAL_BATCH, build_sources, make, restarted, stream_hash
from tests.support.paths import ROOT

needs_dali = pytest.mark.needs("dali")

CASES: dict[str, dict[str, Any]] = {
    "plain": {"micro_batch_size": 4},
    "document mask": {"document_mask": True, "micro_batch_size": 3},
    "best fit": {"packing": "best_fit", "document_mask": True, "micro_batch_size": 8},
    "no prefetch": {"prefetch_steps": 0},
    "a rank of three": {"data_parallel_rank": 1, "data_parallel_size": 3, "micro_batch_size": 2},
    "blend": {"weights": {"a": 2, "b": 1}, "changes": [{"step": 2, "weights": {"b": 1}}]},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dali") / "store"
    sources = {name: [f"{name} {i} " * (3 + i % 17) for i in range(40)] for name in "ab"}
    build_sources(path, sources, held_out_fraction=0.2)
    pack_store(Store.open(path), 32)
    return path


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        for name in (field.name for field in fields(Batch)):
            a, b = getattr(mine, name), getattr(theirs, name)
            if a is None:
                assert b is None, name
            else:
                assert a.dtype == b.dtype and torch.equal(a, b), name


@needs_dali
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_batches_are_the_plain_loaders(store: Path, changes: dict[str, Any]) -> None:
    dali, plain = make(store, feed="dali", **changes), make(store, **changes)
    for step in range(6):
        assert_equal(plain.step(step), dali.step(step))
    plain.close()


@needs_dali
@pytest.mark.parametrize("examples", ["conversations", "pairs"])
def test_what_tuning_learns_is_fed_as_well(examples: str, tmp_path: Path) -> None:
    turns = [("user", "why"), ("assistant", "so")]
    rows: dict[str, Any] = {
        "conversations": {"messages": [{"role": r, "content": t} for r, t in turns]},
        "pairs": {"prompt": "why", "chosen": "so", "rejected": "no"},
    }
    lines = [json.dumps(rows[examples]).replace("why", f"why {i}") for i in range(40)]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines))
    store = tmp_path / "store"
    build_chat_store([tmp_path / "chat.jsonl"], store, tokenizer="bytes", held_out_fraction=0.0)
    changes: dict[str, Any] = {"examples": examples, "seq_len": 96, "micro_batch_size": 4}
    if examples == "conversations":
        changes |= {"packing": "best_fit", "document_mask": True}
    dali, plain = make(store, feed="dali", **changes), make(store, **changes)
    for step in range(3):
        assert_equal(plain.step(step), dali.step(step))
    plain.close()


@needs_dali
def test_a_checkpoint_of_either_continues_under_the_other(store: Path) -> None:
    changes = {"document_mask": True, "micro_batch_size": 4}
    expected = make(store, **changes)
    batches = [expected.step(step) for step in range(9)]
    expected.close()
    loader = make(store, feed="dali", **changes)
    for step, feed in enumerate(["dali", "dali", "torch", "torch", "dali", "dali", "dali"]):
        if step in (2, 4, 6):
            loader = restarted(loader, store, feed=feed, **changes)
        assert_equal(batches[step], loader.step(step))
    assert_equal(batches[2], loader.step(2))  # and any step on its own
    assert_equal(batches[3], loader.step(3))


@needs_dali
def test_the_stream_is_the_same_for_any_number_of_ranks(store: Path) -> None:
    plain = stream_hash(store, 6)
    assert [stream_hash(store, 6, ranks, feed="dali") for ranks in (1, 2, 3)] == [plain] * 3


@needs_dali
def test_held_out_ends_where_it_ends(store: Path) -> None:
    changes = {"split": HELD_OUT, "global_batch_size": 2, "micro_batch_size": 2}
    dali, plain = make(store, feed="dali", **changes), make(store, **changes)
    steps = plain.num_sequences // 2
    for _ in range(2):  # an evaluation begins again
        for step in range(steps):
            assert_equal(plain.step(step), dali.step(step))
    with pytest.raises(ValueError, match="held_out has"):
        dali.step(steps)
    assert_equal(plain.step(0), dali.step(0))
    plain.close()


def test_without_dali_one_line_says_what_to_install(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ValueError, match=r"pip install 'moescale\[dali\]'") as caught:
        make(store, feed="dali")
    assert "\n" not in str(caught.value)


def test_the_plain_loader_never_imports_dali(store: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from data.config import DataConfig;"
        " from data.loading.loader import Loader;"
        " Loader(DataConfig(store=Path(sys.argv[1])), seq_len=32,"
        f" global_batch_size={GLOBAL_BATCH}, micro_batch_size=1).step(0);"
        " assert 'nvidia.dali' not in sys.modules; assert 'pandas' not in sys.modules;"
        " import os; os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store)], capture_output=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()
