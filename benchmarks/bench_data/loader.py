"""`moe bench loader`: reading training samples, beside other libraries, on the same tokens."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.session import bench_session
from benchmarks.bench_data.loader_order import (
    FIRST_INDICES,
    FIRST_SEQUENCES,
    SEQ_LEN,
    measure_in_subprocess,
    stream_hashes,
)
from benchmarks.bench_data.loader_peers import READERS, Read
from benchmarks.bench_data.loader_stores import Corpus, sparse_store, synthetic_store
from benchmarks.errors import BenchmarkError
from data.config import DataConfig
from data.loading.loader import Loader
from data.loading.order import shuffled
from parallel.measurement.intervals import median_interval

HASHED_STEPS = 12
BATCH = 8
MAX_STARTS = 5
NOTE = "files in the page cache; int64 out; Megatron's samples come with labels, masks, positions"


@dataclass(frozen=True)
class LoaderPlan:
    """What is read."""

    seq_len: int
    num_tokens: int
    """Tokens of the synthetic corpus."""
    samples: int
    """Samples of one timed repeat."""
    order_samples: int
    """Samples of the epoch whose order is computed, and built."""
    corpus_tokens: int
    """Tokens of the corpus whose first batch is timed."""


def run(store: Path | None, plan: LoaderPlan, options: BenchOptions) -> list[dict[str, Any]]:
    """Measure random reads, complete batches, starts, and the stream's hashes."""
    name = "synthetic" if store is None else str(store)
    with bench_session(options) as session, _corpus(store, plan) as corpus:
        sizes = {"store": name, "seq_len": plan.seq_len, "tokens": int(corpus.tokens.size)}
        timing = {"samples": plan.samples, "repeats": options.repeats}
        starts = {"order_samples": plan.order_samples, "corpus_tokens": plan.corpus_tokens}
        cases = [
            Case(
                {"what": "reads", **sizes, **timing}, partial(measure_reads, corpus, plan, options)
            ),
            Case(
                {"what": "batches", **sizes, **timing},
                partial(measure_batches, corpus, plan, options),
            ),
            Case({"what": "starts", **starts}, partial(measure_starts, plan, options)),
            Case({"what": "streams", **sizes}, partial(measure_streams, corpus)),
        ]
        return session.run("loader", cases)


@contextmanager
def _corpus(store: Path | None, plan: LoaderPlan) -> Iterator[Corpus]:
    with tempfile.TemporaryDirectory(prefix="moescale-bench-") as name:
        folder = Path(name)
        if store is None:
            store = folder / "store"
            synthetic_store(store, plan.num_tokens)
        corpus = Corpus.of(store, folder, plan.seq_len)
        if corpus.num_windows < 1:
            raise BenchmarkError(
                f"{store}: {corpus.tokens.size} training tokens, too few for one sequence of"
                f" {plan.seq_len + 1}: build from more text, or shorten --seq-len"
            )
        yield corpus


def measure_reads(corpus: Corpus, plan: LoaderPlan, options: BenchOptions) -> dict[str, Any]:
    """Read random samples with every reader in turn, so that drift is shared."""
    absent = {reader.name: list(reader.missing) for reader in READERS if reader.missing}
    reads: dict[str, Read] = {}
    opened: dict[str, float] = {}
    for reader in READERS:
        if reader.missing:
            continue
        reader.prepare(corpus)
        reader.open(corpus)(0)  # untimed: the first use imports and compiles
        begin = time.perf_counter()
        reads[reader.name] = reader.open(corpus)
        reads[reader.name](0)
        opened[reader.name] = time.perf_counter() - begin
        if reader.exact:
            _check_same(corpus, reader.name, reads[reader.name])
    rates = _rates(reads, corpus.num_windows, plan, options)
    baseline = rates[READERS[0].name]
    rows = [
        {
            "reader": name,
            "open_s": opened[name],
            "tokens_per_s": median_interval(rate).to_json(),
            "over_memmap": median_interval(
                [a / b for a, b in zip(rate, baseline, strict=True)]
            ).to_json(),
        }
        for name, rate in rates.items()
    ]
    return {"readers": rows, "absent": absent, "note": NOTE}


def _check_same(corpus: Corpus, name: str, read: Read) -> None:
    for index in {0, corpus.num_windows // 2, corpus.num_windows - 1}:
        first = index * corpus.seq_len
        if not np.array_equal(read(index), corpus.tokens[first : first + corpus.seq_len + 1]):
            raise BenchmarkError(f"{name}: sample {index} is not the corpus's: nothing to compare")


def _rates(
    reads: Mapping[str, Read], num_samples: int, plan: LoaderPlan, options: BenchOptions
) -> dict[str, list[float]]:
    """Return tokens per second of every repeat; the readers' repeats take turns."""
    rates: dict[str, list[float]] = {name: [] for name in reads}
    for repeat in range(options.warmup + options.repeats):
        first = repeat * plan.samples
        indices = shuffled(np.arange(first, first + plan.samples), num_samples, seed=1).tolist()
        for name, read in reads.items():
            begin = time.perf_counter()
            for index in indices:
                read(index)
            seconds = time.perf_counter() - begin
            if repeat >= options.warmup:
                rates[name].append(plan.samples * plan.seq_len / seconds)
    return rates


def measure_batches(corpus: Corpus, plan: LoaderPlan, options: BenchOptions) -> dict[str, Any]:
    """Fill complete batches (labels, masks, positions) of 8 sequences, without prefetching."""
    feeds: dict[str, dict[str, Any]] = {
        "torch": {},
        "torch, document mask": {"document_mask": True},
    }
    absent = {}
    try:
        _loader(corpus, {"feed": "dali"})
        feeds["dali"] = {"feed": "dali"}
    except ValueError as error:
        absent["dali"] = str(error)
    steps = max(1, plan.samples // BATCH)
    rates: dict[str, list[float]] = {name: [] for name in feeds}
    for repeat in range(options.warmup + options.repeats):
        for name, data in feeds.items():
            loader = _loader(corpus, data)
            loader.step(0)
            begin = time.perf_counter()
            for step in range(1, steps + 1):
                loader.step(step)
            seconds = time.perf_counter() - begin
            loader.close()
            if repeat >= options.warmup:
                rates[name].append(steps * BATCH * plan.seq_len / seconds)
    rows = [
        {"feed": name, "tokens_per_s": median_interval(values).to_json()}
        for name, values in rates.items()
    ]
    return {"feeds": rows, "absent": absent}


def _loader(corpus: Corpus, data: Mapping[str, Any]) -> Loader:
    config = DataConfig(store=corpus.store, prefetch_steps=0, **data)
    return Loader(config, seq_len=corpus.seq_len, global_batch_size=BATCH, micro_batch_size=BATCH)


def measure_starts(plan: LoaderPlan, options: BenchOptions) -> dict[str, Any]:
    """Time starts, each in a new process; the corpus is a sparse file: real format, no content."""
    with tempfile.TemporaryDirectory(prefix="moescale-bench-") as name:
        store = Path(name) / "store"
        tokens = sparse_store(store, plan.corpus_tokens)
        repeats, samples = min(options.repeats, MAX_STARTS), plan.order_samples
        order = f"{samples:,} samples"
        batch = f"{FIRST_SEQUENCES} x {SEQ_LEN} of {tokens:.3g} tokens"
        rows = [
            _start_row(f"open the store, first batch: {batch}", "first_batch", store, repeats),
            _start_row(f"first {FIRST_INDICES} of {order}", "computed_order", samples, repeats),
            _start_row(f"shuffled array of {order}", "built_order", samples, 1),
        ]
    return {"starts": rows}


def _start_row(what: str, case: str, argument: Path | int, repeats: int) -> dict[str, Any]:
    starts = [measure_in_subprocess(case, argument) for _ in range(repeats)]
    times = {
        name: median_interval([start[name] for start in starts]).to_json()
        for name in ("seconds", "cpu_seconds")
    }
    return {"what": what, **times, "grown_bytes": max(start["grown_bytes"] for start in starts)}


def measure_streams(corpus: Corpus) -> dict[str, Any]:
    """Hash one run's samples, read in ways that must not change them."""
    seq_len = min(corpus.seq_len, max(1, corpus.tokens.size // 400))
    rows = stream_hashes(corpus.store, seq_len=seq_len, steps=HASHED_STEPS)
    return {"streams": rows, "equal": len({row["sha256"] for row in rows}) == 1}
