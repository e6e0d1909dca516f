"""`moe bench checkpoint`: writing and reading a complete training state."""

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.layer_fit import load_fitting_model
from benchmarks.bench.session import BenchSession, bench_session
from benchmarks.bench.trainer import MeasuredTrainer, bench_experiment, bench_store
from moe.checkpoint.training_state import load_checkpoint, save_checkpoint, snapshot
from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger
from parallel.engine.collectives import all_gather_objects
from parallel.measurement.intervals import median_interval


def run(
    models: Sequence[str], layers: int | None, folder: Path | None, options: BenchOptions
) -> list[dict[str, Any]]:
    """Measure each model's checkpoint under `folder` (default: the temporary directory)."""
    with bench_session(options) as session, bench_store(None) as store:
        cases = []
        for name in models:
            model, key = load_fitting_model(name, layers, session, _estimated_bytes)
            experiment = bench_experiment(
                model.model_dump(mode="json", exclude_none=True),
                store,
                seq_len=min(128, model.max_seq_len),
                micro_batch_size=1,
                global_batch_size=session.engine.dp,
                sections=dict(session.sections),
            )
            key |= {"repeats": options.repeats, **session.sections}
            cases.append(Case(key, partial(measure, experiment, session, folder)))
        return session.run("checkpoint", cases)


def _estimated_bytes(model: ModelConfig) -> float:
    """Return weights, gradients and moments in FP32, and the copy that is being written."""
    return 32.0 * ledger(model, 1).total_parameters


def measure(experiment: Experiment, session: BenchSession, folder: Path | None) -> dict[str, Any]:
    """Save and load in turn; a save counts until every file is on disk.

    `pause_s` is the time that training waits, for the copy in memory; the rest is written in the
    background.
    """
    subject, options = MeasuredTrainer(experiment, session.engine), session.options
    subject.step()
    trainer, pauses, saves, loads = subject.trainer, [], [], []
    with tempfile.TemporaryDirectory(prefix="moescale-checkpoint-", dir=folder) as name:
        # All ranks write into rank 0's folder.
        root = Path(all_gather_objects(name)[0])
        size = 0
        for number in range(options.warmup + options.repeats):
            start = time.perf_counter()
            snapshot(trainer.chunks, trainer.optimizer)
            copied = time.perf_counter()
            path = save_checkpoint(root, number, trainer.chunks, trainer.optimizer, {}, keep=1)
            saved = time.perf_counter()
            load_checkpoint(path, trainer.chunks, trainer.optimizer)
            loaded = time.perf_counter()
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            if number >= options.warmup:
                pauses.append(copied - start)
                saves.append(saved - copied)
                loads.append(loaded - saved)
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
