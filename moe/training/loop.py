"""The training loop: step, log, evaluate and save until the last step, a signal or a rejection."""

import time
from dataclasses import dataclass

from moe.errors import TrainingStoppedError
from moe.runs.callbacks import Phase
from moe.runs.directory import RunDirectory
from moe.runs.files import EVALUATIONS
from moe.runs.record import Record
from moe.training.held_out import evaluate_held_out
from moe.training.logs.callback_list import CallbackList
from moe.training.logs.memory_record import MemoryMeter
from moe.training.logs.metrics_log import MetricsLog
from moe.training.logs.progress import TrainProgress
from moe.training.logs.run_record import record_end
from moe.training.logs.totals import RunTotals
from moe.training.rejections import keep_rejected_step, warn_of_rejected
from moe.training.saver import CheckpointSaver
from moe.training.startup.conditions import RunConditions
from moe.training.step import train_step
from moe.training.stop_signals import stop_requests
from moe.training.trainer import Trainer
from parallel.engine.collectives import all_gather_objects
from parallel.engine.watchdog import Watchdog


@dataclass(frozen=True, kw_only=True)
class TrainingLoop:
    """One start of a run: what trains, and what follows it."""

    trainer: Trainer
    conditions: RunConditions
    watchdog: Watchdog
    run_directory: RunDirectory | None
    """On rank 0."""
    callbacks: CallbackList
    log: MetricsLog
    memory: MemoryMeter
    saver: CheckpointSaver
    progress: TrainProgress
    until_step: int | None = None
    """Pause after this step, as if a signal had come."""

    def run(self, totals: RunTotals) -> Record:
        """Train what is left after `totals`, evaluate, save, and complete the record."""
        train = self.trainer.experiment.train
        is_trained = totals.step == train.steps
        self.progress.begin(totals.step, train.steps)
        self._enter("train", totals)
        if not is_trained and self._lacks_evaluation(totals.step):
            self._evaluate(totals)
        with stop_requests() as stop_requested:
            while totals.step < train.steps:
                stop_here = totals.step + 1 == self.until_step
                totals, stop = self._train_step(totals, stop_here or stop_requested())
                if totals.step == train.steps:
                    break
                if stop:
                    self._save(totals, is_last=True)
                    record = self._finish("stopped", totals)
                    if stop_here and not stop_requested():
                        return record
                    raise TrainingStoppedError.after(totals.step)
                if _is_due(train.eval_interval, totals.step):
                    self._evaluate(totals)
                if _is_due(train.checkpoint_interval, totals.step):
                    self._save(totals)
            loss = self._evaluate(totals)
            if not is_trained:
                self._save(totals, is_last=True)
        return self._finish("finished", totals, final_loss=loss)

    def _train_step(self, totals: RunTotals, stop: bool) -> tuple[RunTotals, bool]:
        """Train and log one step; returns the totals after it and whether to stop."""
        train = self.trainer.experiment.train
        self.watchdog.beat(f"training step {totals.step + 1}")
        begin = time.perf_counter()
        result = train_step(
            self.trainer, totals.step, stop=stop, save_refused=self.saver.is_refused
        )
        elapsed_s = time.perf_counter() - begin
        if result.rejection is not None:
            with self.watchdog.storage(f"dumping step {totals.step + 1}"):
                keep_rejected_step(self.saver, totals.step, result, result.rejection)
        totals = totals.after(result, elapsed_s)
        self.log.add(result, elapsed_s)
        ends_here = result.stop or totals.step == train.steps
        if ends_here or _is_due(train.log_interval, totals.step):
            self.progress.row(self.log.write_row(totals, result))
        if result.save_refused:
            self._wait_for_save("waiting for storage")
        return totals, result.stop

    def _lacks_evaluation(self, step: int) -> bool:
        """Return whether one was due where the start before stopped, in haste; collective."""
        if step == 0 or not _is_due(self.trainer.experiment.train.eval_interval, step):
            return False
        last = None if self.run_directory is None else self.run_directory.last_row(EVALUATIONS)
        return bool(all_gather_objects(last is None or last.get("step") != step)[0])

    def _evaluate(self, totals: RunTotals) -> float | None:
        """Measure, record and return the held-out loss, nats per token."""
        self._enter("evaluate", totals)
        means = evaluate_held_out(self.trainer)
        self.log.write_evaluation(totals, means)
        self.progress.evaluated(totals.step, means["loss"])
        self._enter("train", totals)
        return means["loss"]

    def _save(self, totals: RunTotals, *, is_last: bool = False) -> None:
        """Write a checkpoint in the background; wait for the last one."""
        self._enter("checkpoint", totals)
        state = {
            **totals.as_checkpoint_state(),
            **self.trainer.state(),
            "observers": self.callbacks.states(),
        }
        self._wait_for_save("waiting for the checkpoint before")
        self.saver.save(totals.step, state)
        if is_last:
            self._wait_for_save("waiting for the last checkpoint", may_fail=False)
        self._enter("train", totals)

    def _wait_for_save(self, activity: str, *, may_fail: bool | None = None) -> None:
        with self.watchdog.storage(activity):
            self.saver.wait(may_fail=may_fail)

    def _enter(self, phase: Phase, totals: RunTotals) -> None:
        self.watchdog.beat(f"phase {phase} after step {totals.step}")
        self.callbacks.enter(phase)
        if phase != "train" and self.conditions.probe is not None:
            self.conditions.probe.repeat(totals.train_time_s)

    def _finish(self, status: str, totals: RunTotals, final_loss: float | None = None) -> Record:
        sections = self.callbacks.finish() | self.memory.section()
        if self.run_directory is None:
            return {}
        record_end(
            self.run_directory,
            self.trainer,
            self.conditions,
            totals,
            status=status,
            final_loss=final_loss,
            sections=sections,
        )
        self.log.finish()
        warn_of_rejected(totals, self.run_directory.path)
        return self.run_directory.record


def _is_due(interval: int | None, step: int) -> bool:
    return interval is not None and step % interval == 0
