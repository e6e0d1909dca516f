"""`moe bench loader`: what its result holds, that it reads the same tokens, and who is absent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench.cases import BenchOptions
from benchmarks.bench_data import loader
from benchmarks.bench_data.loader_order import CASES, measure_in_subprocess
from benchmarks.bench_data.loader_peers import READERS, Reader
from benchmarks.bench_data.loader_stores import Corpus, sparse_store, synthetic_store
from benchmarks.bench_data.loader_tables import loader_tables
from benchmarks.errors import BenchmarkError
from data.loading.loader import Loader
from data.store.reader import Store
from data.store.writer import SHARD_TOKENS
from tests.support.paths import ROOT

PLAN = loader.LoaderPlan(
    seq_len=64, num_tokens=30_000, samples=20, order_samples=10_000,
    corpus_tokens=2 * SHARD_TOKENS,
)  # fmt: skip
OPTIONS = BenchOptions(repeats=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    synthetic_store(folder / "store", 30_000)
    return Corpus.of(folder / "store", folder, 64)


def test_the_synthetic_store_is_a_store(corpus: Corpus) -> None:
    store = Store.open(corpus.store)
    assert store.verify() == []
    stream = corpus.stream
    assert stream.num_tokens >= 30_000
    tokens = stream.read(0, stream.num_tokens)
    ends = np.flatnonzero(tokens == store.manifest.tokenizer.eos_id) + 1
    assert np.array_equal(ends, stream.ends)
    assert np.array_equal(tokens, corpus.tokens)


INSTALLED = [reader for reader in READERS if reader.exact and not reader.missing]


@pytest.mark.parametrize("reader", INSTALLED, ids=lambda reader: reader.name)
def test_readers_give_the_same_samples(reader: Reader, corpus: Corpus) -> None:
    reader.prepare(corpus)
    read = reader.open(corpus)
    for index in (0, 7, corpus.num_windows - 1):
        sample = read(index)
        assert sample.dtype == np.int64
        assert np.array_equal(sample, corpus.tokens[64 * index : 64 * index + 65])


def test_a_reader_of_other_tokens_is_refused(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Reader("wrong", (), lambda _: None, lambda _: lambda _i: np.zeros(65, np.int64))
    monkeypatch.setattr(loader, "READERS", (READERS[0], wrong))
    with pytest.raises(BenchmarkError, match="wrong: sample 0 is not the corpus's"):
        loader.measure_reads(corpus, PLAN, OPTIONS)


def test_absent_peers_are_named(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Reader("gone", ("no_such_package",), lambda _: None, READERS[0].open)
    monkeypatch.setattr(loader, "READERS", (READERS[0], gone))
    result = loader.measure_reads(corpus, PLAN, OPTIONS)
    assert result["absent"] == {"gone": ["no_such_package"]}
    assert [row["reader"] for row in result["readers"]] == ["numpy memmap"]
    (table,) = loader_tables(
        [{"case": {"what": "reads", "seq_len": 64, "tokens": 30_000}, "result": result}]
    )
    assert str(list(table.columns[1].cells)[-1]) == "absent: no_such_package not installed"


def test_stream_hashes_do_not_depend_on_how_they_are_read(corpus: Corpus) -> None:
    result = loader.measure_streams(corpus)
    assert result["equal"]
    names = [row["read_by"] for row in result["streams"]]
    assert {"1 rank", "8 ranks", "no worker", "restart at step 4"} <= set(names)


def test_unequal_streams_are_detected(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader whose ranks do not read their own shards is detected."""
    monkeypatch.setattr(Loader, "step", lambda self, index: self._make(index + self._rank))
    assert not loader.measure_streams(corpus)["equal"]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sparse") / "store"
    assert sparse_store(path, 10**12) >= 10**12
    return path


def test_the_sparse_corpus_has_the_real_format_and_occupies_no_disk(sparse: Path) -> None:
    store = Store.open(sparse)
    stream = store.split("train").streams[0]
    assert stream.num_tokens == store.manifest.tokens >= 10**12
    assert not stream.read(stream.num_tokens - 5, 5).any()
    on_disk = sum(512 * p.stat().st_blocks // p.stat().st_nlink for p in sparse.rglob("*.arrow"))
    assert on_disk < 1 << 20


def test_a_start_on_1e12_tokens_takes_little_memory(sparse: Path) -> None:
    """Under 50 MB and without building an index; seconds are for the benchmark, not for tests."""
    start = measure_in_subprocess("first_batch", sparse)
    assert 0 < start["grown_bytes"] < 50_000_000
    assert start["seconds"] > 0 and start["cpu_seconds"] > 0
    assert measure_in_subprocess("computed_order", 10**8)["grown_bytes"] < 10_000_000
    with pytest.raises(BenchmarkError, match=r"first_batch /nowhere: .*no manifest"):
        measure_in_subprocess("first_batch", "/nowhere")
    assert set(CASES) == {"first_batch", "computed_order", "built_order"}


def test_the_command_as_a_user_runs_it(tmp_path: Path) -> None:
    """In a new process: Megatron's dataset beside ours, and one JSON document."""
    command = [sys.executable, "-m", "moescale", "bench", "loader", "--tokens", "60000",
               "--seq-len", "64", "--samples", "40", "--repeats", "1", "--warmup", "0",
               "--order-samples", "100000", "--corpus-tokens", "1000000000",
               "--out", str(tmp_path / "out.jsonl"), "--json"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = json.loads(done.stdout)
    kept = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == records
    results = {record["case"]["what"]: record["result"] for record in records}
    readers = {row["reader"]: row for row in results["reads"]["readers"]}
    for name in ("numpy memmap", "moescale", "megatron GPTDataset"):
        assert readers[name]["tokens_per_s"]["median"] > 0
    assert readers["numpy memmap"]["over_memmap"]["median"] == 1
    absent = results["reads"]["absent"]
    assert set(readers) | set(absent) == {reader.name for reader in READERS}
    assert {row["feed"] for row in results["batches"]["feeds"]} >= {"torch", "torch, document mask"}
    assert len(results["starts"]["starts"]) == 3
    assert results["streams"]["equal"]
    tables = [table.as_json() for table in loader_tables(records)]
    assert [len(table["rows"]) for table in tables[:2]] == [len(READERS), 3]
    assert [row[0] for row in tables[0]["rows"]] == [*readers, *absent]
    assert tables[0]["columns"][-1] == "over numpy memmap"
    assert tables[2]["columns"][-1] == "memory growth"
    assert tables[3]["title"].endswith("all equal")
