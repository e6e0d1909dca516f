"""Writes checkpoints in the background: training waits for a copy in memory, not for storage."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist

from data.storage.new_directory import discard
from moe.checkpoint.directory import begin, complete, partial_path, remove_old
from moe.checkpoint.format import Snapshot, index_of, write_shards
from moe.errors import StorageError
from parallel.engine.collectives import new_storage_group
from parallel.layout.layout import STORAGE_TIMEOUT_S

RETRY_AFTER_S = (1.0, 4.0, 16.0)
"""Pauses before a save that storage refused is tried again."""
RETRY_EVERY_S = 60.0
"""Pauses after those, where it is tried until it succeeds."""


class Checkpointer:
    """One rank's writer of a run's checkpoints; all ranks make the same calls.

    Ranks agree over process groups of their own, so that training's collectives go on meanwhile.
    At most one checkpoint is on its way: the next save waits for it.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep: int,
        what: str = "checkpoint",
        keep_every: int | None = None,
        retries: bool = False,
        timeout_s: float = STORAGE_TIMEOUT_S,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Write under `root`; all ranks make one.

        Args:
            root: Folder of the checkpoints.
            keep: How many of the newest stay.
            what: What messages call one.
            keep_every: Each multiple of so many steps stays too.
            retries: Try again for up to `timeout_s`, instead of a few times.
            timeout_s: Seconds that a rank waits for the slowest.
            report: Called on rank 0, by another thread, when storage refuses a checkpoint not for
                the first time.
        """
        self.root, self.keep, self.keep_every = root, keep, keep_every
        self._what = what
        self.group = new_storage_group(timeout_s)
        self.is_refused = False
        """Whether storage refuses the newest checkpoint, after some tries."""
        self._report = report
        # Ends before the watchdog does, which says less.
        more = int(0.9 * timeout_s / RETRY_EVERY_S) if retries else 0
        self._pauses_s = (*RETRY_AFTER_S, *[RETRY_EVERY_S] * more)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, step: int, snapshot: Snapshot, state: Mapping[str, Any]) -> None:
        """Begin to write the checkpoint of `step`; `state` are JSON values of rank 0.

        Raises:
            StorageError: The one before could not be written.
        """
        self.wait()
        self.is_refused = False
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
            for tries, pause_s in enumerate((*self._pauses_s, 0.0), 1):
                fault = self._write(step, snapshot, state)
                if fault is None:
                    self.is_refused = False
                    return
                if dist.get_rank() == 0:
                    # A full disk would stay full meanwhile, for what the run logs.
                    discard(partial_path(self.root, step))
                message = (
                    f"the {self._what} of step {step} could not be written, tried {tries} times:"
                    f" {fault}: make room or repair it"
                )
                if tries == len(RETRY_AFTER_S) + 1:
                    self.is_refused = True
                    if dist.get_rank() == 0:
                        self._report(message)
                time.sleep(pause_s)
            raise StorageError(message)
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
