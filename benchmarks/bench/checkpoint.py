"""`moe bench checkpoint`: writing and reading a whole training state."""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench.cases import Case
from benchmarks.bench.layer_fit import fitted, free_bytes
from benchmarks.bench.session import BenchSession, bench_session, print_line
from benchmarks.bench.trainer import MeasuredTrainer, bench_experiment, bench_store
from moe.checkpoint.training_state import load_checkpoint, save_checkpoint, snapshot
from moe.config.experiment import Experiment, load_model
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger
from parallel.engine.collectives import all_gather_objects
from parallel.measurement.intervals import median_interval


def run(
    models: Sequence[str],
    *,
    layers: int | None,
    folder: Path | None,
    repeats: int,
    warmup: int,
    overrides: Sequence[str],
    out: Path | None,
) -> list[dict[str, Any]]:
    """Measure each model's checkpoint under `folder` (default: the temporary directory)."""
    with bench_session(overrides) as session, bench_store(None) as store:
        cases = []
        for name in models:
            full = load_model(name)
            model, word = fitted(name, full, layers, free_bytes(session.engine), _bytes)
            if word is not None and session.engine.is_main:
                print_line(word)
            experiment = bench_experiment(
                model.model_dump(mode="json", exclude_none=True),
                store,
                seq_len=min(128, model.max_seq_len),
                micro_batch_size=1,
                global_batch_size=session.engine.dp,
                sections=dict(session.sections),
            )
            key = {"model": name, "layers": model.num_layers, "of_layers": full.num_layers,
                   "repeats": repeats, **session.sections}  # fmt: skip
            cases.append(Case(key, partial(measure, experiment, session, folder, repeats, warmup)))
        return session.run("checkpoint", cases, out)


def _bytes(model: ModelConfig) -> float:
    """Return weights, gradients and moments in FP32, and a copy that is being written."""
    return 32.0 * ledger(model, 1).total_parameters


def measure(
    experiment: Experiment, session: BenchSession, folder: Path | None, repeats: int, warmup: int
) -> dict[str, Any]:
    """Save and load in turn; a save counts until every file is on disk.

    `pause_s` is what training waits for: the copy in memory; the rest is written beside it.
    """
    subject = MeasuredTrainer(experiment, session.engine)
    subject.step()
    trainer, pauses, saves, loads = subject.trainer, [], [], []
    with tempfile.TemporaryDirectory(prefix="moescale-checkpoint-", dir=folder) as name:
        # Every rank writes where rank 0 says.
        root = Path(all_gather_objects(name)[0])
        size = 0
        for number in range(warmup + repeats):
            start = time.perf_counter()
            snapshot(trainer.chunks, trainer.optimizer)
            begin = time.perf_counter()
            path = save_checkpoint(root, number, trainer.chunks, trainer.optimizer, {}, keep=1)
            middle = time.perf_counter()
            load_checkpoint(path, trainer.chunks, trainer.optimizer)
            end = time.perf_counter()
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            if number >= warmup:
                pauses.append(begin - start)
                saves.append(middle - begin)
                loads.append(end - middle)
        all_gather_objects(None)
    subject.close()
    save, load = median_interval(saves), median_interval(loads)
    return {
        "bytes": size,
        "pause_s": median_interval(pauses).to_json(),
        "save_s": save.to_json(),
        "load_s": load.to_json(),
        "save_bytes_per_s": size / save.median,
        "load_bytes_per_s": size / load.median,
        "note": "loading reads files just written: from the page cache where they fit in memory",
    }
