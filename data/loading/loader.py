"""The batches of each optimizer step, from a token store.

The stream of samples is a pure function of the store, the `[data]` section and the sequence
length: sample i of the run is the same for any number of ranks, micro-batch size, prefetch depth,
restart and run length. Step k trains on samples [k * global_batch_size, (k + 1) * ...).
"""

import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.config import DataConfig
from data.errors import DataError
from data.loading.batch import Batch
from data.loading.conversations import Examples
from data.loading.dali import DaliPipeline
from data.loading.sample_stream import RowLocations
from data.loading.samples import open_samples
from data.store.manifest import TRAIN, SplitName


class Loader:
    """Batches of one data-parallel rank, by step, prepared ahead by background threads."""

    def __init__(  # noqa: PLR0913 - everything a stream of batches depends on
        self,
        config: DataConfig,
        *,
        seq_len: int,
        global_batch_size: int,
        micro_batch_size: int,
        data_parallel_rank: int = 0,
        data_parallel_size: int = 1,
        split: SplitName = TRAIN,
        vocab_size: int | None = None,
        examples: Examples = "text",
    ) -> None:
        """Open the store and check that it can feed these sizes.

        Args:
            config: The `[data]` section.
            seq_len: Tokens a sequence, S.
            global_batch_size: Sequences of one step over all ranks.
            micro_batch_size: Sequences of one batch, B.
            data_parallel_rank: This rank.
            data_parallel_size: Ranks that share each step's sequences.
            split: `train` (reshuffled each epoch, endless) or `held_out` (in stored order, once).
            vocab_size: Rows of the model's embedding; None: unchecked.
            examples: What is learned from; of `pairs`, batches hold the chosen and the rejected
                one alternately.

        Raises:
            DataError: The store is missing or damaged, its vocabulary is larger than
                `vocab_size`, the split is too small for one sequence, or sizes do not divide.
        """
        if global_batch_size % (micro_batch_size * data_parallel_size):
            raise DataError(
                f"global_batch_size={global_batch_size} is not divisible by micro_batch_size="
                f"{micro_batch_size} * data-parallel ranks={data_parallel_size}: change one"
            )
        self._samples = open_samples(
            config,
            seq_len=seq_len,
            global_batch_size=global_batch_size,
            split=split,
            vocab_size=vocab_size,
            examples=examples,
        )
        self._config = config
        self._seq_len = seq_len
        self._global_batch_size = global_batch_size
        self._micro_batch_size = micro_batch_size
        self._rank, self._ranks = data_parallel_rank, data_parallel_size
        pin = config.pin_memory
        self._pin_memory = torch.cuda.is_available() if pin is None else pin
        self._next_step = 0
        self._ahead: dict[int, Future[list[Batch]]] = {}
        self._worker = None
        self._dali: DaliPipeline | None = None
        if config.feed == "dali":
            depth = (
                config.prefetch_steps * global_batch_size // (micro_batch_size * data_parallel_size)
            )
            self._dali = DaliPipeline(self._samples, self._locations, seq_len, depth)
        elif config.prefetch_steps:
            self._worker = ThreadPoolExecutor(config.workers, "loader")
        self._stall_seconds = 0.0

    @property
    def num_sequences(self) -> int:
        """Sequences in the split, each counted once."""
        return len(self._samples)

    @property
    def sources(self) -> list[str]:
        """Names of the sources."""
        return [source.name for source in self._samples.sources]

    @property
    def stall_seconds(self) -> float:
        """Total seconds that the caller has waited for batches."""
        return self._stall_seconds

    def describe(self, steps: int) -> dict[str, Any]:
        """Return each source's `sequences` and `epochs` in a run of `steps` steps.

        With best-fit packing also its `padding_share` of all positions, and the `cut_share` of
        its documents.
        """
        return self._samples.describe(steps * self._global_batch_size)

    def check_steps(self, steps: int) -> None:
        """Raise DataError where `steps` steps would repeat a source beyond `max_epochs`."""
        self._samples.check(steps * self._global_batch_size)

    def step(self, index: int) -> list[Batch]:
        """Return this rank's micro-batches of optimizer step `index` (from 0), in order.

        Raises:
            DataError: The split is used up (held out), or `max_epochs` would be passed.
        """
        begin = time.perf_counter()
        ready = self._ahead.pop(index, None)
        if self._dali is not None:
            batches = self._dali.step(index)
        else:
            batches = self._make(index) if ready is None else ready.result()
        self._stall_seconds += time.perf_counter() - begin
        self._next_step = index + 1
        self._prefetch()
        return batches

    def state_dict(self) -> dict[str, Any]:
        """Return the next sample's index and what the sample stream depends on (<= 200 bytes)."""
        next_sample = self._next_step * self._global_batch_size
        return {"next_sample": next_sample, "fingerprint": self._fingerprint(next_sample)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that `state` belongs to this sample stream; the next step follows from it.

        Raises:
            DataError: What was read until then came from another store, order, blend, packing,
                sequence length or batch size.
        """
        next_sample = int(state["next_sample"])
        former = self._fingerprint(next_sample, **self._samples.former_identity)
        if state.get("fingerprint") not in (self._fingerprint(next_sample), former):
            raise DataError(
                f"the checkpoint's data state belongs to another sample stream: up to sample"
                f" {next_sample}, the store, its sources, data.seed, the blend, packing, seq_len or"
                " global_batch_size were others: restore them or start a new run"
            )
        self._next_step = next_sample // self._global_batch_size
        self._prefetch()

    def close(self) -> None:
        """Stop the background threads."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def _fingerprint(self, next_sample: int, **changes: Any) -> str:
        content = [self._samples.identity(next_sample) | changes, self._global_batch_size]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _prefetch(self) -> None:
        if self._worker is None:
            return
        upcoming = range(self._next_step, self._next_step + self._config.prefetch_steps)
        for index in [index for index in self._ahead if index not in upcoming]:
            self._ahead.pop(index).cancel()
        for index in upcoming:
            if index not in self._ahead:
                self._ahead[index] = self._worker.submit(self._make, index)

    def _locations(self, step: int) -> list[RowLocations]:
        """Return source and sequence of every row of this rank's micro-batches of a step."""
        size = self._global_batch_size // self._ranks
        first = step * self._global_batch_size + self._rank * size
        positions = np.arange(first, first + size, dtype=np.int64)
        sources, samples = self._samples.locate(positions)
        splits = range(self._micro_batch_size, size, self._micro_batch_size)
        return list(zip(np.split(sources, splits), np.split(samples, splits), strict=True))

    def _make(self, step: int) -> list[Batch]:
        return [self._collate(*locations) for locations in self._locations(step)]

    def _collate(self, sources: NDArray[np.int64], samples: NDArray[np.int64]) -> Batch:
        batch = Batch.empty(samples.size, self._seq_len, self._pin_memory)
        cu_seqlens = self._samples.fill(sources, samples, batch.rows())
        return replace(
            batch,
            cu_seqlens=None if cu_seqlens is None else torch.from_numpy(cu_seqlens),
            sources=torch.from_numpy(sources),
        )
