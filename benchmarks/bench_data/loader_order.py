"""What the order of samples costs and guarantees: starts in new processes, stream hashes.

`python -m benchmarks.bench_data.loader_order CASE ARGUMENT` measures one case in its process: wall
and processor seconds, and by how many bytes the process grew at its peak.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from data.config import DataConfig
from data.loading.loader import Loader
from data.loading.order import shuffled
from moe.runs.source_state import CHECKOUT
from parallel.hardware.host_memory import process_bytes

FIRST_INDICES = 4096
FIRST_SEQUENCES = 8
SEQ_LEN = 2048
GLOBAL_BATCH = 24


def first_batch(store: str) -> None:
    """Open a store and load the first batch, 8 sequences of 2,048 tokens."""
    loader = Loader(
        DataConfig(store=Path(store), prefetch_steps=0),
        seq_len=SEQ_LEN,
        global_batch_size=FIRST_SEQUENCES,
        micro_batch_size=FIRST_SEQUENCES,
    )
    loader.step(0)


def computed_order(num_samples: str) -> None:
    """Compute the first 4,096 samples of an epoch."""
    shuffled(np.arange(FIRST_INDICES), int(num_samples), seed=0)


def built_order(num_samples: str) -> None:
    """Shuffle an array of all samples, as Megatron builds its `shuffle_index`."""
    np.random.RandomState(0).shuffle(np.arange(int(num_samples), dtype=np.uint32))


CASES: Mapping[str, Callable[[str], None]] = {
    case.__name__: case for case in (first_batch, computed_order, built_order)
}


def measure_in_subprocess(case: str, argument: str | Path | int) -> dict[str, Any]:
    """Run a case in a new process; returns its `seconds`, `cpu_seconds` and `grown_bytes`.

    Raises:
        BenchmarkError: The process failed.
    """
    command = [sys.executable, "-m", "benchmarks.bench_data.loader_order", case, str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    if done.returncode:
        raise BenchmarkError(f"{case} {argument}: {(done.stderr.strip() or '?').splitlines()[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(case: str, argument: str) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    before = process_bytes("VmRSS")
    begin, begin_cpu = time.perf_counter(), time.process_time()
    CASES[case](argument)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    grown = process_bytes("VmHWM") - before
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "grown_bytes": grown}


def stream_hashes(store: Path, *, seq_len: int, steps: int) -> list[dict[str, str]]:
    """Return the SHA-256 of a run's samples, read in ways that must not change them."""
    readings: dict[str, dict[str, Any]] = {
        f"{ranks} rank{'s' * (ranks > 1)}": {"ranks": ranks} for ranks in (1, 2, 3, 8)
    }
    readings["micro-batches of 12"] = {"micro_batch_size": 12}
    readings["no worker"] = {"prefetch_steps": 0}
    readings["4 workers, 5 steps ahead"] = {"workers": 4, "prefetch_steps": 5}
    readings[f"restart at step {steps // 3}"] = {"restart_at": steps // 3}
    readings["beginning of a run twice as long"] = {"more_steps": steps}
    if find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None:
        readings["DALI"] = {"feed": "dali"}
        readings["DALI, 2 ranks, restart"] = {"feed": "dali", "ranks": 2, "restart_at": steps // 2}
    return [
        {"read_by": name, "sha256": _stream_hash(store, seq_len, steps, **reading)}
        for name, reading in readings.items()
    ]


def _stream_hash(  # noqa: PLR0913 - how to read
    store: Path,
    seq_len: int,
    steps: int,
    *,
    ranks: int = 1,
    micro_batch_size: int = 1,
    restart_at: int | None = None,
    more_steps: int = 0,
    **data: Any,
) -> str:
    config = DataConfig(store=store, **data)

    def open_all() -> list[Loader]:
        return [
            Loader(
                config,
                seq_len=seq_len,
                global_batch_size=GLOBAL_BATCH,
                micro_batch_size=micro_batch_size,
                data_parallel_rank=rank,
                data_parallel_size=ranks,
            )
            for rank in range(ranks)
        ]

    digest = hashlib.sha256()
    loaders = open_all()
    for step in range(steps + more_steps):
        if step == restart_at:
            states = [json.dumps(loader.state_dict()) for loader in loaders]
            for loader in loaders:
                loader.close()
            loaders = open_all()
            for loader, state in zip(loaders, states, strict=True):
                loader.load_state_dict(json.loads(state))
        for batch in (batch for loader in loaders for batch in loader.step(step)):
            if step < steps:
                digest.update(batch.tokens.cpu().numpy().tobytes())
    for loader in loaders:
        loader.close()
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
