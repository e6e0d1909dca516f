"""A trainer under measurement, on real text or a given store, timed step by step."""

import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.instruments import best_rate, synchronize
from data.build.build import build_store
from data.loading.batch import Batch
from moe.config.experiment import Experiment, make_experiment
from moe.training.logs.aux_losses import pop_mean_aux_losses
from moe.training.startup.build import build_trainer
from moe.training.startup.execution_report import execution_report, verify_execution
from moe.training.step import train_step
from parallel.engine.start import Engine
from parallel.hardware.probe import measure_matmul_rate

TEXT_BYTES = 1_500_000


class MeasuredTrainer:
    """Our training step (data, forward, backward, optimizer) under a routing profile."""

    name = "moescale"

    def __init__(self, experiment: Experiment, engine: Engine) -> None:
        """Build the trainer.

        Raises:
            ExecutionError: What was built is not what the experiment asks for.
        """
        self.experiment, self.engine = experiment, engine
        self.trainer = build_trainer(experiment, engine)
        try:
            self.execution = execution_report(self.trainer)
            verify_execution(experiment, self.execution)
        except BaseException:
            self.trainer.close()
            raise
        self._next = 0
        self.last_imbalance: float | None = None
        """Largest load of an expert over its layer's mean, in the last step."""
        self.last_stall_s = 0.0
        """Seconds the last step waited for data."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step over all ranks."""
        return self.experiment.train.positions_per_step

    def force_routing(self, profile: RoutingProfile) -> None:
        """Force a profile on every router; each layer draws experts of its own."""
        train, moe = self.experiment.train, self.experiment.model.moe
        if moe is None:
            return
        layout = self.experiment.parallel
        tokens = train.micro_batch_size * train.seq_len // layout.cp
        if layout.sp:
            tokens //= layout.tp
        generator = torch.Generator().manual_seed(1 + self.engine.rank)
        for router in self.routers():
            experts = profile.draw_experts(tokens, moe.num_experts, moe.top_k, generator)
            router.forced_experts = None if experts is None else experts.to(self.engine.device)

    def routers(self) -> list[Any]:
        """Return this rank's routers."""
        layers = [layer for chunk in self.trainer.chunks for layer in chunk.module.decoder.layers]
        return [layer.mlp.router for layer in layers if hasattr(layer.mlp, "router")]

    def step(self) -> float:
        """Run one training step; returns its duration, s."""
        synchronize(self.engine.device)
        stalled = self.trainer.loader.stall_seconds
        begin = time.perf_counter()
        train_step(self.trainer, self._next)
        synchronize(self.engine.device)
        elapsed = time.perf_counter() - begin
        self.last_stall_s = self.trainer.loader.stall_seconds - stalled
        self._next += 1
        pop_mean_aux_losses(self.trainer)
        load = self.trainer.routing.pop().counts.double()
        self.last_imbalance = float((load.amax(1) / load.mean(1)).max()) if load.numel() else None
        return elapsed

    def last_batches(self) -> list[Batch]:
        """Return the last step's batches again; batches loaded ahead are not lost."""
        return self.trainer.loader.step(self._next - 1)

    def close(self) -> None:
        """Stop the loaders."""
        self.trainer.close()


def measure_peak_rate(engine: Engine, experiment: Experiment) -> dict[str, Any]:
    """Return the best of three measured matmul rates: a peak is what nothing disturbed."""
    dtype = torch.bfloat16 if experiment.precision.dtype == "bf16" else torch.float32
    return best_rate(measure_matmul_rate(engine.device, dtype) for _ in range(3))


@contextmanager
def bench_store(store: Path | None) -> Iterator[Path]:
    """Yield the given token store, or a temporary one of the standard library's source as bytes."""
    if store is not None:
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="moescale-bench-") as folder:
        root = Path(folder)
        text, size = [], 0
        for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
            text.append(path)
            size += path.stat().st_size
            if size > TEXT_BYTES:
                break
        build_store(text, root / "store", tokenizer="bytes", held_out_fraction=0.2)
        yield root / "store"


def bench_experiment(  # noqa: PLR0913 - what a benchmarked step is made of
    model: dict[str, Any],
    store: Path,
    *,
    seq_len: int,
    micro_batch_size: int,
    global_batch_size: int,
    sections: dict[str, Any],
) -> Experiment:
    """Return an experiment to measure; `sections` may hold `parallel`, `precision`, `energy`."""
    train = {
        "steps": 1_000_000,
        "seq_len": seq_len,
        "micro_batch_size": micro_batch_size,
        "global_batch_size": global_batch_size,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "seed": 1,
    }
    values = {"name": "bench", "model": model, "data": {"store": str(store)}, "train": train}
    return make_experiment({**values, **sections}, origin="moe bench")
