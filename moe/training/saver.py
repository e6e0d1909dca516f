"""Checkpoints of a run in training: saved in the background, and dumps of rejected steps."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe.checkpoint.training_state import snapshot
from moe.checkpoint.writer import Checkpointer
from moe.config.experiment import Experiment
from moe.errors import StorageError
from moe.runs.directory import RunDirectory
from moe.runs.files import CHECKPOINTS, DUMPS
from moe.training.trainer import Trainer

MAX_DUMPS = 3
"""Newest rejected steps whose dumps are kept."""


@dataclass(frozen=True, kw_only=True)
class CheckpointSaver:
    """Saves a run's checkpoints; all ranks make the same calls."""

    trainer: Trainer
    checkpoints: Checkpointer
    dumps: Checkpointer
    run: RunDirectory | None
    """On rank 0, which records saves that failed."""

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Copy the state of `step` and begin to write it; waits for the save before.

        `state` are JSON values that are stored beside the trainer's.

        Raises:
            StorageError: The save before failed, and the run is to end then.
        """
        self.wait()
        self.trainer.wait_for_param_gather()
        copy = snapshot(self.trainer.chunks, self.trainer.optimizer)
        self.checkpoints.save(step, copy, state)

    @property
    def is_refused(self) -> bool:
        """Whether storage refuses the newest checkpoint; known on some ranks before others."""
        return self.checkpoints.is_refused

    def wait(self, *, may_fail: bool | None = None) -> None:
        """Wait for the save under way; one that failed is recorded.

        `may_fail` says whether training outlives that. Default: `train.on_failed_save`.

        Raises:
            StorageError: It failed, and the run is to end.
        """
        if may_fail is None:
            may_fail = self.trainer.experiment.train.on_failed_save == "continue"
        try:
            self.checkpoints.wait()
        except StorageError as error:
            self.checkpoints.is_refused = False
            self._record_failure(error)
            if not may_fail:
                raise StorageError(f"{error}, then continue with --resume") from None

    def dump(self, step: int, state: Mapping[str, Any]) -> StorageError | None:
        """Write the state from before a rejected step, to replay it, and wait for it.

        Returns what the storage refused, which is recorded; None: nothing.
        """
        copy = snapshot(self.trainer.chunks, self.trainer.optimizer)
        try:
            self.dumps.save(step, copy, {**self.trainer.state(), **state})
            self.dumps.wait()
        except StorageError as error:
            self._record_failure(error)
            return error
        return None

    def _record_failure(self, error: StorageError) -> None:
        if self.run is not None:
            failed = [*self.run.record.get("failed_saves", []), str(error)]
            self.run.update({"failed_saves": failed})


def open_saver(trainer: Trainer, run_dir: Path, run: RunDirectory | None) -> CheckpointSaver:
    """Make the saver of a run; a collective call."""
    experiment = trainer.experiment
    train, timeout_s = experiment.train, experiment.parallel.storage_timeout_s
    return CheckpointSaver(
        trainer=trainer,
        checkpoints=Checkpointer(
            run_dir / CHECKPOINTS,
            keep=train.keep_checkpoints,
            keep_every=train.keep_every,
            retries=train.on_failed_save == "wait",
            timeout_s=timeout_s,
            report=_report(experiment),
        ),
        dumps=Checkpointer(run_dir / DUMPS, keep=MAX_DUMPS, what="dump", timeout_s=timeout_s),
        run=run,
    )


def _report(experiment: Experiment) -> Callable[[str], None]:
    """Return what says that storage refuses a checkpoint, where the run does not end by it."""
    if experiment.train.on_failed_save == "stop":
        return lambda _: None
    limit_s = experiment.parallel.storage_timeout_s
    consequence = "training goes on"
    if experiment.train.on_failed_save == "wait":
        consequence = f"training waits for it, up to parallel.storage_timeout_s = {limit_s:g}"
    return lambda message: print(f"moe: {message}; {consequence}", file=sys.stderr, flush=True)
