"""A run from start or checkpoint to its end: steps, rows, evaluations, checkpoints, record."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from moe.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from moe.config.experiment import Experiment
from moe.errors import ConfigError, StoppedError
from moe.ledger import ledger
from moe.observe import Observer, Phase, RunPlace
from moe.run import RunDirectory, describe_start, now
from moe.train_step import StepResult, Trainer
from parallel.engine import ENGINE_VERSION, Engine, gather_objects
from parallel.hardware import describe_device, measure_matmul_rate

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class Progress(Protocol):
    """Is told what happens; rank 0 only."""

    def begin(self, step: int, steps: int) -> None:
        """Training goes on after `step` of `steps`."""

    def row(self, row: Mapping[str, Any]) -> None:
        """A metrics row was written."""

    def evaluated(self, step: int, loss: float | None) -> None:
        """The held-out loss was measured."""


def train(  # noqa: PLR0913 - the one entry point of a run
    experiment: Experiment,
    engine: Engine,
    run_dir: Path,
    *,
    resume: bool = False,
    observers: Sequence[Observer] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train an experiment in `run_dir` and return its record (rank 0; {} elsewhere).

    Raises:
        ConfigError: Bad input, or a run directory that is in use or holds another run.
        StoppedError: A signal came; the checkpoint is written.
    """
    run = _claim(run_dir, experiment, engine, resume)
    try:
        trainer = Trainer(experiment, engine)
        try:
            session = Session(experiment, engine, run, trainer, observers, progress)
            return session.run_to_end(run_dir)
        finally:
            trainer.close()
    except BaseException as error:
        if run is not None:
            status = "stopped" if isinstance(error, StoppedError) else "failed"
            run.update({"status": status, "finished_at": now()})
        raise
    finally:
        if run is not None:
            run.release()


def _claim(
    run_dir: Path, experiment: Experiment, engine: Engine, resume: bool
) -> RunDirectory | None:
    """Claim the directory on rank 0; a refusal there ends every rank."""
    run = None
    refusal: list[str | None] = [None]
    if engine.is_main:
        try:
            run = RunDirectory(run_dir, experiment, resume=resume)
        except ConfigError as error:
            refusal = [str(error)]
    if engine.world_size > 1:
        dist.broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise ConfigError(refusal[0])
    return run


def run_place(engine: Engine, run_dir: Path) -> RunPlace:
    """Return a rank's place in a run, as observers and meters take it."""
    return RunPlace(
        run_dir=run_dir,
        rank=engine.rank,
        local_rank=engine.local_rank,
        world_size=engine.world_size,
        hostname=engine.hostname,
        device="cuda" if engine.device.type == "cuda" else "cpu",
        gather=gather_objects,
    )


class Session:
    """One start of a run: what has been done so far, and what is told to whom."""

    def __init__(  # noqa: PLR0913 - assembled in one place
        self,
        experiment: Experiment,
        engine: Engine,
        run: RunDirectory | None,
        trainer: Trainer,
        observers: Sequence[Observer],
        progress: Progress | None,
    ) -> None:
        self.experiment, self.engine, self.run = experiment, engine, run
        self.trainer, self.observers, self.progress = trainer, observers, progress
        self.step = self.tokens = 0
        self.train_time_s = 0.0
        self.last_evaluation: tuple[int, float | None] = (-1, None)
        self.last_loss: float | None = None
        self.writer: Any = None
        dtype = torch.bfloat16 if experiment.precision.dtype == "bf16" else torch.float32
        self.peak = measure_matmul_rate(engine.device, dtype)
        self.ledger = ledger(experiment.model, experiment.train.seq_len)

    def run_to_end(self, run_dir: Path) -> dict[str, Any]:
        """Train what is left, evaluate, save, and complete the record."""
        state = self._restore(run_dir)
        steps = self.experiment.train.steps
        if self.step == steps:
            return self.run.record if self.run is not None else {}
        self._start(run_dir, state)
        with _stop_requests() as stop_requested:
            while self.step < steps:
                result = self._train_one(stop_requested())
                if result.stop and self.step < steps:
                    self._save(run_dir)
                    self._finish("stopped")
                    raise StoppedError(
                        f"stopped by a signal after step {self.step}; the checkpoint is written:"
                        " continue with --resume"
                    )
                self._at_intervals(run_dir)
            self._evaluate()
            self._save(run_dir)
        return self._finish("finished")

    def _restore(self, run_dir: Path) -> dict[str, Any]:
        """Load the newest complete checkpoint; {} when there is none."""
        found = [latest_checkpoint(run_dir / "checkpoints")] if self.engine.is_main else [None]
        if self.engine.world_size > 1:
            dist.broadcast_object_list(found)
        if found[0] is None:
            if self.run is not None:
                self.run.forget_after(0)
            return {}
        trainer = self.trainer
        state = load_checkpoint(found[0], trainer.chunks, trainer.optimizer)
        trainer.loader.load_state_dict(state["data"])
        self.step, self.tokens = state["step"], state["tokens"]
        self.train_time_s = state["train_time_s"]
        if self.run is not None:
            self.run.forget_after(self.step)
        return state

    def _start(self, run_dir: Path, state: Mapping[str, Any]) -> None:
        engine, experiment = self.engine, self.experiment
        place = run_place(engine, run_dir)
        kept = state.get("observers", [None] * len(self.observers))
        for observer, observer_state in zip(self.observers, kept, strict=True):
            observer.start(place, observer_state)
        if self.run is not None:
            first = {} if self.run.record else describe_start(experiment)
            self.run.update(first | self._conditions() | {"status": "running"})
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(run_dir / "events", purge_step=self.step + 1)
        if self.progress is not None:
            self.progress.begin(self.step, experiment.train.steps)
        self._phase("train")
        self._restart_interval()

    def _conditions(self) -> dict[str, Any]:
        """Return what really runs: taken from the engine and the built model."""
        experiment, engine = self.experiment, self.engine
        layout = experiment.parallel.model_dump(
            include={"tp", "sp", "pp", "vpp", "ep", "etp", "cp"}
        )
        return {
            "hardware": describe_device(engine.device) | {"ranks": engine.world_size},
            "execution": self.trainer.describe() | {"megatron_core": ENGINE_VERSION},
            "layout": layout | {"dp": engine.dp},
            "data": self.trainer.loader.describe(experiment.train.steps),
            "ledger": self.ledger.as_json(),
            "peak": self.peak,
        }

    def _train_one(self, stop: bool) -> StepResult:
        begin = time.perf_counter()
        result = self.trainer.step(self.step, stop=stop)
        elapsed = time.perf_counter() - begin
        self.interval_s += elapsed
        self.train_time_s += elapsed
        self.step += 1
        self.tokens += result.tokens
        self.interval_tokens += result.tokens
        self.interval_steps += 1
        self.last_loss = result.loss
        due = self.step % self.experiment.train.log_interval == 0
        if due or result.stop or self.step == self.experiment.train.steps:
            self._log(result)
        return result

    def _log(self, result: StepResult) -> None:
        """Write one metrics row for the steps since the last one; a collective call."""
        rate = self.interval_tokens / self.interval_s
        flops_per_s = rate * self.ledger.training_flops_per_token / self.engine.world_size
        stall = self._longest_stall()
        row: dict[str, Any] = {
            "step": self.step,
            "tokens": self.tokens,
            "loss": result.loss,
            **self.trainer.router_losses(self.interval_steps),
            "grad_norm": result.grad_norm,
            "learning_rate": result.learning_rate,
            "step_time_s": self.interval_s / self.interval_steps,
            "tokens_per_s": rate,
            "flops_per_s": flops_per_s,
            "mfu": flops_per_s / self.peak["flops_per_s"],
            "data_stall_s": stall,
            "data_stall_share": stall / self.interval_s,
        }
        for observer in self.observers:
            row |= observer.step(self.step, self.tokens)
        load = self.trainer.expert_load.take()
        if self.run is not None:
            self.run.append("metrics", row)
            if load.numel():
                layers = self.trainer.expert_load.layers
                self.run.append(
                    "expert_load",
                    {"step": self.step, "layers": layers, "counts": load.tolist()},
                )
            self._draw(row, load)
        if self.progress is not None:
            self.progress.row(row)
        self._restart_interval()

    def _longest_stall(self) -> float:
        """Return seconds of this interval that the rank which waited most waited for data."""
        stall = torch.tensor(self.trainer.loader.stall_seconds - self.interval_stall)
        dist.all_reduce(stall, op=dist.ReduceOp.MAX)
        return float(stall)

    def _restart_interval(self) -> None:
        self.interval_s = 0.0
        self.interval_tokens = self.interval_steps = 0
        self.interval_stall = self.trainer.loader.stall_seconds

    def _draw(self, row: Mapping[str, Any], load: torch.Tensor) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self.writer.add_scalar(f"train/{name}", value, self.step)
        for layer, counts in zip(self.trainer.expert_load.layers, load.float(), strict=True):
            busiest = float(counts.max() / counts.mean())
            self.writer.add_scalar(f"expert_load/max_over_mean_layer_{layer}", busiest, self.step)
            self.writer.add_histogram(f"expert_load/layer_{layer}", counts, self.step)

    def _at_intervals(self, run_dir: Path) -> None:
        train = self.experiment.train
        if self.step == train.steps:
            return
        if train.eval_interval and self.step % train.eval_interval == 0:
            self._evaluate()
        if train.checkpoint_interval and self.step % train.checkpoint_interval == 0:
            self._save(run_dir)

    def _evaluate(self) -> None:
        self._phase("evaluate")
        loss = self.trainer.evaluate()
        self.last_evaluation = (self.step, loss)
        if self.run is not None:
            row = {"step": self.step, "tokens": self.tokens, "loss": loss}
            self.run.append("evaluations", row)
            if loss is not None:
                self.writer.add_scalar("held_out/loss", loss, self.step)
        if self.progress is not None:
            self.progress.evaluated(self.step, loss)
        self._phase("train")

    def _save(self, run_dir: Path) -> None:
        self._phase("checkpoint")
        state = {
            "tokens": self.tokens,
            "train_time_s": self.train_time_s,
            "data": self.trainer.loader.state_dict(),
            "observers": [observer.state() for observer in self.observers],
        }
        save_checkpoint(
            run_dir / "checkpoints",
            self.step,
            self.trainer.chunks,
            self.trainer.optimizer,
            state,
            self.experiment.train.keep_checkpoints,
        )
        self._phase("train")

    def _phase(self, name: Phase) -> None:
        for observer in self.observers:
            observer.phase(name)

    def _finish(self, status: str) -> dict[str, Any]:
        sections: dict[str, Any] = {}
        for observer in self.observers:
            sections |= observer.finish()
        if self.run is None:
            return {}
        self.writer.close()
        rate = self.tokens / self.train_time_s if self.train_time_s else None
        flops = rate * self.ledger.training_flops_per_token if rate else None
        flops_per_rank = flops / self.engine.world_size if flops else None
        step, loss = self.last_evaluation
        self.run.update(
            {
                "status": status,
                "finished_at": now(),
                "run_dir": str(self.run.path),
                "steps": self.step,
                "tokens": self.tokens,
                "wall_time_s": self.train_time_s,
                "tokens_per_s": rate,
                "flops_per_s": flops_per_rank,
                "mfu": flops_per_rank / self.peak["flops_per_s"] if flops_per_rank else None,
                "final_loss": loss if step == self.step else None,
                "train_loss": self.last_loss,
                **sections,
            }
        )
        return self.run.record


@contextmanager
def _stop_requests() -> Iterator[Any]:
    """Turn stop signals into a question: was one received? The old handlers come back."""
    received: list[int] = []
    old = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        signal.signal(number, lambda got, _frame: received.append(got))
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
