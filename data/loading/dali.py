"""Batches through NVIDIA DALI: tokens cross to the device as stored and are widened there.

NVIDIA DALI's `external_source` is given rows in narrow types ahead of time, copies them (to the GPU
where there is one) and casts them, so that 9 to 13 bytes a token cross the bus instead of 28.
Batches equal the plain loader's to the bit. Its state is the loader's: the pipeline is a pure
function of the step, and resuming builds it at that step.
"""

import importlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.errors import DataError
from data.loading.batch import Batch
from data.loading.row_buffers import RowBuffers
from data.loading.sample_stream import RowLocations, SampleStream

OUTPUTS = {"tokens": "INT64", "labels": "INT64", "loss_mask": "FLOAT", "position_ids": "INT64"}
"""Fields that go through the pipeline, and DALI's names of the types they leave it in."""


class DaliPipeline:
    """Micro-batches of each step, in order, through a DALI pipeline."""

    def __init__(
        self,
        samples: SampleStream,
        locations: Callable[[int], list[RowLocations]],
        seq_len: int,
        depth: int,
    ) -> None:
        """Prepare the pipeline; it is built on the first step.

        Args:
            samples: The sample stream.
            locations: Source and sequence of every row of each micro-batch of a step.
            seq_len: Tokens a sequence.
            depth: Micro-batches read ahead.

        Raises:
            DataError: DALI is not installed.
        """
        try:
            self._dali: Any = importlib.import_module("nvidia.dali")
            self._fn: Any = importlib.import_module("nvidia.dali.fn")
        except ImportError:
            raise DataError(
                "data.feed = \"dali\" needs NVIDIA DALI: pip install 'moescale[dali]', or set"
                ' data.feed = "torch"'
            ) from None
        self._samples, self._locations = samples, locations
        self._seq_len, self._depth = seq_len, max(depth, 1)
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._next_step = -1

    def step(self, index: int) -> list[Batch]:
        """Return the micro-batches of step `index`; a step out of order rebuilds the pipeline.

        Raises:
            DataError: As `Loader.step`.
        """
        if index != self._next_step:
            self._start(index)
        self._next_step = index + 1
        return [self._next_batch() for _ in range(self._batches_per_step)]

    def _start(self, step: int) -> None:
        self._first_step, self._step_locations = step, self._locations(step)
        self._batches_per_step = len(self._step_locations)
        self._other_fields: deque[dict[str, Any]] = deque()
        """Fields of upcoming batches that do not go through the pipeline."""
        self._fault: DataError | None = None
        types = self._dali.types
        rows = RowBuffers.narrow(1, self._seq_len, self._samples.dtype)
        narrow = [getattr(rows, name).dtype.name.upper() for name in OUTPUTS]
        pipeline = self._dali.Pipeline(
            batch_size=self._step_locations[0][0].size,
            num_threads=1,
            device_id=self._device,
            prefetch_queue_depth=self._depth,
        )
        with pipeline:
            fields = self._fn.external_source(
                source=self._read,
                num_outputs=len(OUTPUTS),
                batch=True,
                dtype=[getattr(types, name) for name in narrow],
                ndim=1,
            )
            if self._device is not None:
                fields = [field.gpu() for field in fields]
            wide = zip(fields, OUTPUTS.values(), strict=True)
            pipeline.set_outputs(*(self._fn.cast(x, dtype=getattr(types, t)) for x, t in wide))
        pipeline.build()
        self._pipeline = pipeline

    def _read(self, iteration: int) -> Sequence[NDArray[Any]]:
        """Return the fields of one micro-batch, [B, S] each; called by DALI, in order."""
        step, number = divmod(iteration, self._batches_per_step)
        try:
            if number == 0:
                self._step_locations = self._locations(self._first_step + step)
            sources, samples = self._step_locations[number]
            rows = RowBuffers.narrow(samples.size, self._seq_len, self._samples.dtype)
            cu_seqlens = self._samples.fill(sources, samples, rows)
        except DataError as error:  # read ahead past the end: raised when that step is requested
            self._fault = error
            raise StopIteration from None
        self._other_fields.append(
            {
                "cu_seqlens": None if cu_seqlens is None else torch.from_numpy(cu_seqlens),
                "lengths": torch.from_numpy(rows.lengths),
                "sources": torch.from_numpy(sources),
            }
        )
        return [getattr(rows, name) for name in OUTPUTS]

    def _next_batch(self) -> Batch:
        try:
            outputs = [self._to_torch(output) for output in self._pipeline.run()]
        except StopIteration:
            self._next_step = -1
            raise self._fault or DataError("the DALI pipeline ended early") from None
        fields = dict(zip(OUTPUTS, outputs, strict=True))
        return Batch(**fields, **self._other_fields.popleft())

    def _to_torch(self, output: Any) -> torch.Tensor:
        """Copy an output, whose memory DALI reuses."""
        if self._device is None:
            return torch.from_numpy(np.array(output.as_array()))
        return torch.utils.dlpack.from_dlpack(output.as_tensor()).clone()
