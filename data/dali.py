"""The DALI feed: stored tokens cross to the device as they are and are widened there.

NVIDIA DALI's `external_source` reads windows of uint16 or uint32 tokens ahead of time, copies them
(to the GPU where there is one) and casts them to int64, so that a quarter or half of the bytes
cross the bus. Batches equal the plain loader's to the bit. Its state is the loader's: the pipeline
is a pure function of the step, and resuming builds it at that step.
"""

import importlib
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.batch import Batch
from data.errors import DataError
from data.samples import ChunkedStream, Places, Samples


class DaliFeed:
    """Micro-batches of each step, in order, through a DALI pipeline."""

    def __init__(
        self, samples: Samples, places: Callable[[int], list[Places]], depth: int, pin_memory: bool
    ) -> None:
        """Prepare a feed; the pipeline is built on the first step.

        Args:
            samples: The sample stream.
            places: Source and sequence of every row of each micro-batch of a step.
            depth: Micro-batches read ahead.
            pin_memory: Put what stays on the CPU in page-locked memory.

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
        self._samples, self._places = samples, places
        self._depth, self._pin_memory = max(depth, 1), pin_memory
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._next_step = -1

    def step(self, index: int) -> list[Batch]:
        """Return the micro-batches of step `index`; a step out of order builds the pipeline anew.

        Raises:
            DataError: As `Loader.step`.
        """
        if index != self._next_step:
            self._start(index)
        self._next_step = index + 1
        return [self._next_batch() for _ in range(self._batches_a_step)]

    def _start(self, step: int) -> None:
        places = self._places(step)
        self._first_step, self._batches_a_step = step, len(places)
        self._ahead: deque[NDArray[Any]] = deque()
        self._fault: DataError | None = None
        dtype = getattr(self._dali.types, self._window(places[0]).dtype.name.upper())
        pipeline = self._dali.Pipeline(
            batch_size=places[0][0].size,
            num_threads=1,
            device_id=self._device,
            prefetch_queue_depth=self._depth,
        )
        with pipeline:
            window = self._fn.external_source(source=self._read, batch=True, dtype=dtype, ndim=1)
            window = window if self._device is None else window.gpu()
            wide = self._fn.cast(window, dtype=self._dali.types.INT64)
            pipeline.set_outputs(wide[:-1], wide[1:])
        pipeline.build()
        self._pipeline = pipeline

    def _read(self, iteration: int) -> NDArray[Any]:
        """Return the windows of one micro-batch, [B, S + 1] as stored; called by DALI."""
        step, batch = divmod(iteration, self._batches_a_step)
        try:
            windows = self._window(self._places(self._first_step + step)[batch])
        except DataError as error:  # reading ahead past the end: told when that step is asked for
            self._fault = error
            raise StopIteration from None
        self._ahead.append(windows)
        return windows

    def _window(self, places: Places) -> NDArray[Any]:
        windows = []
        for source, sample in zip(*(part.tolist() for part in places), strict=True):
            stream = self._samples.sources[source]
            assert isinstance(stream, ChunkedStream)  # the [data] section allows no other packing
            windows.append(stream.window(sample))
        return np.stack(windows)

    def _next_batch(self) -> Batch:
        try:
            tokens, labels = (self._to_torch(output) for output in self._pipeline.run())
        except StopIteration:
            self._next_step = -1
            raise self._fault or DataError("the DALI pipeline ended early") from None
        batch = Batch.empty(tokens.shape[0], tokens.shape[1], self._pin_memory)
        borders = self._samples.mask_documents(self._ahead.popleft(), batch.rows())
        device = tokens.device
        return replace(
            batch,
            tokens=tokens,
            labels=labels,
            loss_mask=batch.loss_mask.to(device),
            position_ids=batch.position_ids.to(device),
            cu_seqlens=None if borders is None else torch.from_numpy(borders).to(device),
        )

    def _to_torch(self, output: Any) -> torch.Tensor:
        """Copy an output, whose memory DALI uses again."""
        if self._device is None:
            return torch.from_numpy(output.as_array().copy())
        return torch.utils.dlpack.from_dlpack(output.as_tensor()).clone()
