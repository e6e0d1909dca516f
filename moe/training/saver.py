"""Checkpoints of a run in training: saved in the background, and dumps of rejected steps."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe.checkpoint.training_state import snapshot
from moe.checkpoint.writer import Checkpointer
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
        """
        self.wait()
        self.trainer.wait_for_param_gather()
        copy = snapshot(self.trainer.chunks, self.trainer.optimizer)
        self.checkpoints.save(step, copy, state)

    def wait(self, consequence: str = "training goes on") -> None:
        """Wait for the save under way; training outlives one that failed, which is recorded."""
        try:
            self.checkpoints.wait()
        except StorageError as error:
            if self.run is not None:
                print(f"moe: {error}; {consequence}", file=sys.stderr)
                failed = [*self.run.record.get("failed_saves", []), str(error)]
                self.run.update({"failed_saves": failed})

    def wait_for_last(self) -> None:
        """Wait for the last save of this start.

        Raises:
            StorageError: It failed.
        """
        try:
            self.checkpoints.wait()
        except StorageError as error:
            raise StorageError(f"{error}, then continue with --resume") from None

    def dump(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state from before a rejected step, to replay it, and wait for it."""
        copy = snapshot(self.trainer.chunks, self.trainer.optimizer)
        self.dumps.save(step, copy, {**self.trainer.state(), **state})
        self.dumps.wait()


def open_saver(trainer: Trainer, run_dir: Path, run: RunDirectory | None) -> CheckpointSaver:
    """Make the saver of a run; a collective call."""
    train = trainer.experiment.train
    return CheckpointSaver(
        trainer=trainer,
        checkpoints=Checkpointer(
            run_dir / CHECKPOINTS, keep=train.keep_checkpoints, keep_every=train.keep_every
        ),
        dumps=Checkpointer(run_dir / DUMPS, keep=MAX_DUMPS),
        run=run,
    )
