"""Writes checkpoints in the background: training waits for a copy in memory, not for storage."""

import json
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from moe.checkpoint.directory import begin, complete, partial_path, remove_old
from moe.checkpoint.format import Snapshot, index_of, write_shards
from moe.errors import StorageError

RETRY_AFTER_S = (1.0, 4.0, 16.0)
"""Pauses before a save that storage refused is tried again."""


class Checkpointer:
    """One rank's writer of a run's checkpoints; all ranks make the same calls.

    Ranks agree over process groups of their own, so that training's collectives go on meanwhile.
    At most one checkpoint is on its way: the next save waits for it.
    """

    def __init__(self, root: Path, *, keep: int, keep_every: int | None = None) -> None:
        """Write under `root`; keep the newest `keep`, and each multiple of `keep_every` steps."""
        self.root, self.keep, self.keep_every = root, keep, keep_every
        self.group = dist.new_group(backend="gloo") if dist.get_world_size() > 1 else None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, step: int, snapshot: Snapshot, state: Mapping[str, Any]) -> None:
        """Begin to write the checkpoint of `step`; `state` are JSON values of rank 0.

        Raises:
            StorageError: The one before could not be written.
        """
        self.wait()
        frozen = json.loads(json.dumps(state))
        self._thread = threading.Thread(
            target=self._run, args=(step, snapshot, frozen), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until the checkpoint being written is complete.

        Raises:
            StorageError: It could not be written; what was there before still is.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, step: int, snapshot: Snapshot, state: dict[str, Any]) -> None:
        try:
            for pause in (*RETRY_AFTER_S, None):
                fault = self._write(step, snapshot, state)
                if fault is None:
                    return
                if pause is not None:
                    time.sleep(pause)
            if dist.get_rank() == 0:
                shutil.rmtree(partial_path(self.root, step), ignore_errors=True)
            raise StorageError(
                f"the checkpoint of step {step} could not be written, tried"
                f" {len(RETRY_AFTER_S) + 1} times: {fault}: make room or repair it"
            )
        except Exception as error:
            self._error = error

    def _write(self, step: int, snapshot: Snapshot, state: dict[str, Any]) -> str | None:
        """Try once; returns the first error of storage on any rank."""
        is_main, partial = dist.get_rank() == 0, partial_path(self.root, step)
        digests: dict[str, str] = {}

        def write() -> None:
            digests.update(write_shards(partial, snapshot))

        def finish() -> None:
            complete(self.root, step, state, index_of(snapshot.common, ranks))
            remove_old(self.root, self.keep, self.keep_every)

        ranks: list[Any] = []
        if fault := self._agreed(lambda: begin(self.root, step) if is_main else None):
            return fault
        if fault := self._agreed(write):
            return fault
        ranks = self._gather((digests, snapshot.shards))
        return self._agreed(lambda: finish() if is_main else None)

    def _agreed(self, act: Any) -> str | None:
        """Call `act` on every rank; returns the first rank's error, the same everywhere."""
        fault = None
        try:
            act()
        except OSError as error:
            fault = str(error)
        faults = [fault for fault in self._gather(fault) if fault]
        return faults[0] if faults else None

    def _gather(self, value: Any) -> list[Any]:
        if self.group is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self.group)
        return values
