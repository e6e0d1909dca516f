"""A run from start or checkpoint to its end: steps, rows, evaluations, checkpoints, record."""

import hashlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from moe.checkpoint.training_state import load_checkpoint, snapshot
from moe.checkpoint.writer import Checkpointer
from moe.config.experiment import Experiment
from moe.cost.ledger import ledger
from moe.errors import GuardError, StorageError, TrainingStoppedError
from moe.runs.callbacks import Callback, Logger, Phase, RankContext
from moe.runs.directory import RunDirectory
from moe.runs.files import CHECKPOINTS, DUMPS, REJECTED
from moe.runs.goodput import begun, goodput, process_age_s
from moe.runs.record import new_record, utc_now
from moe.training.claim import claim
from moe.training.execution_report import check_execution, execution
from moe.training.guards import Fault
from moe.training.metrics_log import StepLog, finite
from moe.training.trainer import StepResult, Trainer
from parallel.engine.collectives import gather_objects
from parallel.engine.megatron_version import MEGATRON_VERSION
from parallel.engine.start import Engine
from parallel.engine.watchdog import Watchdog
from parallel.hardware.probe import describe_device, measure_matmul_rate

MAX_DUMPS = 3
"""Newest refused steps whose dumps stay."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class TrainProgress(Protocol):
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
    from_step: int | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    progress: TrainProgress | None = None,
) -> dict[str, Any]:
    """Train an experiment in `run_dir` and return its record (rank 0; {} elsewhere).

    Args:
        experiment: What to train.
        engine: This rank's place.
        run_dir: Where the run's files lie.
        resume: Go on from the newest checkpoint, where there is one.
        from_step: Go on from this step's checkpoint instead.
        callbacks: Meters; every rank has them in the same order.
        loggers: Show the run elsewhere, beside TensorBoard; used on rank 0 only.
        progress: Told what happens; rank 0 only.

    Raises:
        ConfigError: Bad input, a run directory that is in use or holds another run, or a damaged
            checkpoint.
        TrainingStoppedError: A signal came; the checkpoint is written.
        StorageError: The disk is full or fails; complete checkpoints are still there.
    """
    watchdog = Watchdog(engine.rank, experiment.parallel.timeout_s)
    run, checkpoint = claim(run_dir, experiment, engine, resume, from_step)
    try:
        trainer = Trainer(experiment, engine, weights_follow=checkpoint is not None)
        trainer.forward.progressed = watchdog.beat
        try:
            session = Session(experiment, engine, run, trainer, callbacks, loggers, progress)
            session.watchdog = watchdog
            return session.run_to_end(run_dir, checkpoint)
        finally:
            trainer.close()
    except BaseException as error:
        if run is not None:
            _note_end(run, "stopped" if isinstance(error, TrainingStoppedError) else "failed")
        if isinstance(error, OSError):
            raise StorageError(
                f"run directory {run_dir}: {error.strerror or error}: make room or repair it, then"
                " continue with --resume from the newest complete checkpoint"
            ) from error
        raise
    finally:
        watchdog.close()
        if run is not None:
            run.release()


def _note_end(run: RunDirectory, status: str) -> None:
    """Write down how the run ended, where storage still takes it."""
    try:
        run.update({"status": status, "finished_at": utc_now()})
    except OSError as error:
        print(f"moe: {run.path}: its record could not be written: {error}", file=sys.stderr)


def rank_context(engine: Engine, run_dir: Path) -> RankContext:
    """Return a rank's place in a run, as callbacks and meters take it."""
    return RankContext(
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

    watchdog: Watchdog

    def __init__(  # noqa: PLR0913 - assembled in one place
        self,
        experiment: Experiment,
        engine: Engine,
        run: RunDirectory | None,
        trainer: Trainer,
        callbacks: Sequence[Callback],
        loggers: Sequence[Logger],
        progress: TrainProgress | None,
    ) -> None:
        self.experiment, self.engine, self.run = experiment, engine, run
        self.trainer, self.callbacks, self.progress = trainer, callbacks, progress
        self.step = self.tokens = self.first_tokens = 0
        # Of every sample trained so far; the same on any ranks, after any restart.
        self.stream_hash = ""
        self.train_time_s = 0.0
        self.last_evaluation: tuple[int, float | None] = (-1, None)
        self.last_loss: float | None = None
        dtype = torch.bfloat16 if experiment.precision.dtype == "bf16" else torch.float32
        self.peak = measure_matmul_rate(engine.device, dtype)
        self.ledger = ledger(experiment.model, experiment.train.seq_len)
        self.execution = execution(trainer)
        check_execution(experiment, self.execution)
        self.log = StepLog(run, trainer, callbacks, loggers, self.ledger, self.peak)

    def run_to_end(self, run_dir: Path, checkpoint: Path | None) -> dict[str, Any]:
        """Train what is left, evaluate, save, and complete the record."""
        self.watchdog.beat("loading the checkpoint")
        state = self._restore(checkpoint)
        steps = self.experiment.train.steps
        if self.step == steps:
            return self.run.record if self.run is not None else {}
        self._start(run_dir, state)
        with _stop_requests() as stop_requested:
            while self.step < steps:
                result = self._train_one(stop_requested())
                if result.stop and self.step < steps:
                    self._save(is_last=True)
                    self._finish("stopped")
                    raise TrainingStoppedError.after(self.step)
                self._at_intervals()
            self._evaluate()
            self._save(is_last=True)
        return self._finish("finished")

    def _restore(self, checkpoint: Path | None) -> dict[str, Any]:
        """Load a checkpoint; {} when there is none."""
        last_row = None if self.run is None else self.run.last_metrics()
        state: dict[str, Any] = {}
        if checkpoint is not None:
            trainer = self.trainer
            state = load_checkpoint(checkpoint, trainer.chunks, trainer.optimizer, verified=True)
            trainer.load_state(state)
            self.step, self.tokens = state["step"], state["tokens"]
            self.stream_hash = state["stream_hash"]
            self.train_time_s = state["train_time_s"]
        self.first_tokens = self.tokens
        if self.run is not None:
            self.run.drop_rows_after(self.step)
            new = {
                "started_at": utc_now(),
                "ranks": self.engine.world_size,
                "first_step": self.step,
                "first_tokens": self.tokens,
                "allocated_s": process_age_s(),
            }
            self.starts = begun(self.run.record.get("starts", []), last_row, new)
        return state

    def _start(self, run_dir: Path, state: Mapping[str, Any]) -> None:
        engine, experiment = self.engine, self.experiment
        train = experiment.train
        self.checkpointer = Checkpointer(
            run_dir / CHECKPOINTS, keep=train.keep_checkpoints, keep_every=train.keep_every
        )
        self.dumps = Checkpointer(run_dir / DUMPS, keep=MAX_DUMPS)
        context = rank_context(engine, run_dir)
        kept = state.get("observers", [None] * len(self.callbacks))
        for callback, callback_state in zip(self.callbacks, kept, strict=True):
            callback.start(context, callback_state)
        if self.run is not None:
            first = {} if self.run.record else new_record(experiment)
            now_running = {"status": "running", "starts": self.starts}
            self.run.update(first | self._conditions() | now_running)
        self.log.start(run_dir, self.step)
        if self.progress is not None:
            self.progress.begin(self.step, train.steps)
        self._phase("train")

    def _conditions(self) -> dict[str, Any]:
        """Return what really runs: taken from the engine and the built model."""
        experiment, engine = self.experiment, self.engine
        layout = experiment.parallel.model_dump(
            include={"tp", "sp", "pp", "vpp", "ep", "etp", "cp"}
        )
        return {
            "hardware": describe_device(engine.device) | {"ranks": engine.world_size},
            "execution": self.execution | {"megatron_core": MEGATRON_VERSION},
            "layout": layout | {"dp": engine.dp},
            "data": self.trainer.loader.describe(experiment.train.steps),
            "ledger": self.ledger.as_json(),
            "peak": self.peak,
        }

    def _train_one(self, stop: bool) -> StepResult:
        self.watchdog.beat(f"training step {self.step + 1}")
        begin = time.perf_counter()
        result = self.trainer.step(self.step, stop=stop)
        elapsed_s = time.perf_counter() - begin
        if result.fault is not None:
            self._refuse(result, result.fault)
        self.train_time_s += elapsed_s
        self.step += 1
        self.tokens += result.tokens
        seen = f"{self.stream_hash} {self.step} {result.checksum}"
        self.stream_hash = hashlib.sha256(seen.encode()).hexdigest()[:16]
        self.last_loss = finite(result.loss)
        self.log.add(result, elapsed_s)
        train = self.experiment.train
        if self.step % train.log_interval == 0 or result.stop or self.step == train.steps:
            row = self.log.write(self.step, self.tokens, self.stream_hash, result)
            if self.progress is not None:
                self.progress.row(row)
        return result

    def _refuse(self, result: StepResult, fault: Fault) -> None:
        """Keep a step whose update was not made: a row, and a dump that replays it.

        Raises:
            GuardError: The run is to end.
        """
        step, batch = self.step + 1, self.experiment.train.global_batch_size
        found = {
            "fault": fault.reason,
            "action": fault.action,
            "samples": [self.step * batch, step * batch],
            "loss": finite(result.loss),
            "grad_norm": finite(result.grad_norm),
        }
        self.watchdog.beat(f"dumping step {step}")
        copy = snapshot(self.trainer.chunks, self.trainer.optimizer)
        self.dumps.save(step, copy, self.trainer.state() | found)
        self.dumps.wait()
        if self.run is not None:
            self.run.append(REJECTED, {"step": step, **found})
        if fault.action == "stop":
            self._wait_for_save("the run ends")
            raise GuardError(
                f"step {step} (samples {self.step * batch} to {step * batch - 1}): {fault.reason};"
                f" look into it with --replay {step}, or go on with --resume and"
                ' --set train.on_nonfinite="skip" (or on_spike)'
            )

    def _at_intervals(self) -> None:
        train = self.experiment.train
        if self.step == train.steps:
            return
        if train.eval_interval and self.step % train.eval_interval == 0:
            self._evaluate()
        if train.checkpoint_interval and self.step % train.checkpoint_interval == 0:
            self._save()

    def _evaluate(self) -> None:
        self._phase("evaluate")
        found = self.trainer.evaluate()
        loss = found["loss"]
        self.last_evaluation = (self.step, loss)
        self.log.evaluated(self.step, self.tokens, found)
        if self.progress is not None:
            self.progress.evaluated(self.step, loss)
        self._phase("train")

    def _save(self, *, is_last: bool = False) -> None:
        """Write a checkpoint in the background; the last one is waited for."""
        self._phase("checkpoint")
        self._wait_for_save()
        state = {
            "tokens": self.tokens,
            "stream_hash": self.stream_hash,
            "train_time_s": self.train_time_s,
            **self.trainer.state(),
            "observers": [callback.state() for callback in self.callbacks],
        }
        self.trainer.settle_parameters()
        copy = snapshot(self.trainer.chunks, self.trainer.optimizer)
        self.checkpointer.save(self.step, copy, state)
        if is_last:
            self._wait_for_last_save()
        self._phase("train")

    def _wait_for_last_save(self) -> None:
        try:
            self.checkpointer.wait()
        except StorageError as error:
            raise StorageError(f"{error}, then continue with --resume") from None

    def _wait_for_save(self, then: str = "training goes on") -> None:
        """Wait for the save before; training outlives one that failed, and its record says so."""
        try:
            self.checkpointer.wait()
        except StorageError as error:
            if self.run is not None:
                print(f"moe: {error}; {then}", file=sys.stderr)
                failed = [*self.run.record.get("failed_saves", []), str(error)]
                self.run.update({"failed_saves": failed})

    def _phase(self, name: Phase) -> None:
        self.watchdog.beat(f"phase {name} after step {self.step}")
        for callback in self.callbacks:
            callback.phase(name)

    def _finish(self, status: str) -> dict[str, Any]:
        sections: dict[str, Any] = {}
        for callback in self.callbacks:
            sections |= callback.finish()
        if self.run is None:
            return {}
        positions = self.step * self.experiment.train.positions_per_step
        flops = positions * self.ledger.training_flops_per_token
        flops_per_s = flops / self.train_time_s / self.engine.world_size
        step, loss = self.last_evaluation
        self.starts[-1] |= {
            "tokens": self.tokens - self.first_tokens,
            "allocated_s": process_age_s(),
            "ended": status,
        }
        self.run.update(
            {
                "status": status,
                "finished_at": utc_now(),
                "run_dir": str(self.run.path),
                "steps": self.step,
                "tokens": self.tokens,
                "positions": positions,
                "stream_hash": self.stream_hash,
                "wall_time_s": self.train_time_s,
                "tokens_per_s": self.tokens / self.train_time_s,
                "flops_per_s": flops_per_s,
                "mfu": flops_per_s / self.peak["flops_per_s"],
                "final_loss": loss if step == self.step else None,
                "train_loss": self.last_loss,
                "starts": self.starts,
                "goodput": goodput(self.starts, self.tokens, self.train_time_s),
                **sections,
            }
        )
        self.log.close()
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
