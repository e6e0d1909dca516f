"""A trainer under measurement, on real text or a given store, timed step by step."""

import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench.forced_routing import RoutingProfile
from benchmarks.bench.instruments import HELD_RATE, best_rate, synchronize
from benchmarks.bench.natural.replay import Replay
from data.build.build import build_store
from data.loading.batch import Batch
from moe.config.experiment import Experiment, make_experiment
from moe.model.routing_rule import RoutingDecision
from moe.routing.decision_hooks import decision_hook, routers_of, sparse_layers
from moe.training.logs.aux_losses import pop_mean_aux_losses
from moe.training.startup.build import build_trainer
from moe.training.startup.execution_report import execution_report, verify_execution
from moe.training.step import StepResult, train_step
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
        self._replay: Replay | None = None
        self.last_result: StepResult | None = None
        self.last_loads: list[float] = []
        """Load of the busiest expert over the mean in each sparse layer, in the last step."""
        self.last_stall_s = 0.0
        """Seconds the last step waited for data."""
        self.last_decisions: list[list[Tensor]] = []
        """Experts [T, K] of the last step, by sparse layer and micro-batch; only where kept."""
        self.keeps_decisions = False

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step over all ranks."""
        return self.experiment.train.positions_per_step

    @property
    def last_imbalance(self) -> float | None:
        """Largest load of an expert over its layer's mean, in the last step; None: no experts."""
        return max(self.last_loads, default=None)

    @property
    def _tokens_per_pass(self) -> int:
        """Tokens of a micro-batch that this rank's routers see."""
        train, layout = self.experiment.train, self.experiment.parallel
        tokens = train.micro_batch_size * train.seq_len // layout.cp
        return tokens // layout.tp if layout.sp else tokens

    @property
    def replayed_tokens_per_step(self) -> int:
        """Tokens of a recording that all ranks take in a step; its micro-batches take the same."""
        return self._tokens_per_pass * self.engine.world_size

    def force_routing(self, profile: RoutingProfile, replay: Replay | None = None) -> None:
        """Force a profile on every router; each layer draws experts of its own.

        Natural routing takes other tokens of `replay` in every step; without one the router
        decides.
        """
        moe = self.experiment.model.moe
        if moe is None:
            return
        self._replay = replay if profile.kind == "natural" else None
        generator = torch.Generator().manual_seed(1 + self.engine.rank)
        for router in self.routers():
            experts = profile.draw_experts(
                self._tokens_per_pass, moe.num_experts, moe.top_k, generator
            )
            router.forced_experts = None if experts is None else experts.to(self.engine.device)

    def _force_recorded(self, replay: Replay) -> None:
        """Force the recorded experts of the next step's tokens."""
        layers, tokens = sparse_layers(self.experiment.model), self._tokens_per_pass
        start = self._next * self.replayed_tokens_per_step + self.engine.rank * tokens
        for router in self.routers():
            layer = replay.recorded_layer(layers.index(router.layer_number - 1))
            experts = replay.experts(layer, start, tokens)
            router.forced_experts = experts.to(self.engine.device)

    def routers(self) -> list[Any]:
        """Return this rank's routers."""
        return routers_of([chunk.module for chunk in self.trainer.chunks])

    def sparse_layers(self) -> list[Any]:
        """Return this rank's decoder layers that have experts."""
        layers = [layer for chunk in self.trainer.chunks for layer in chunk.module.decoder.layers]
        return [layer for layer in layers if hasattr(layer.mlp, "router")]

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the steps to come."""
        train = self.experiment.train.model_copy(update={"learning_rate": rate})
        experiment = self.experiment.model_copy(update={"train": train})
        self.trainer = replace(self.trainer, experiment=experiment)

    def step(self) -> float:
        """Run one training step; returns its duration, s."""
        if self._replay is not None:
            self._force_recorded(self._replay)
        synchronize(self.engine.device)
        stalled = self.trainer.loader.stall_seconds
        with self._keeping_decisions():
            begin = time.perf_counter()
            self.last_result = train_step(self.trainer, self._next)
            synchronize(self.engine.device)
            elapsed = time.perf_counter() - begin
        self.last_stall_s = self.trainer.loader.stall_seconds - stalled
        self._next += 1
        pop_mean_aux_losses(self.trainer)
        load = self.trainer.routing.pop().counts.double()
        self.last_loads = (load.amax(1) / load.mean(1)).tolist() if load.numel() else []
        return elapsed

    @contextmanager
    def _keeping_decisions(self) -> Iterator[None]:
        """Keep the experts that are chosen inside the block, where that is asked for."""
        if not self.keeps_decisions:
            yield
            return
        by_layer: dict[int, list[Tensor]] = {}

        def keep(layer_number: int, decision: RoutingDecision) -> None:
            # Recomputation, inside the backward pass, decides the same again.
            if torch._C._current_graph_task_id() < 0:
                by_layer.setdefault(layer_number, []).append(decision.experts)

        with decision_hook(self.routers(), keep):
            yield
        self.last_decisions = [by_layer[layer] for layer in sorted(by_layer)]

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
        "learning_rate": HELD_RATE,
        "schedule": "constant",
        "seed": 1,
    }
    values = {"name": "bench", "model": model, "data": {"store": str(store)}, "train": train}
    return make_experiment({**values, **sections}, origin="moe bench")
