"""Seconds of each sparse layer in a training step, forward and backward, without stopping it."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


class LayerTimer:
    """Times the sparse feed-forward parts of a model's layers.

    On a GPU its stream is marked where a part begins and ends, so that the step runs on as it does
    without; the marks are read after the step.
    """

    def __init__(self, layers: Sequence[Any], device: torch.device) -> None:
        """Time `layers`, decoder layers on this rank."""
        self._layers = layers
        self._on_gpu = device.type == "cuda"
        self._open: dict[tuple[int, str], Any] = {}
        self._intervals: dict[int, list[tuple[Any, Any]]] = defaultdict(list)

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Time what runs inside the block."""
        with ExitStack() as stack:
            for layer in self._layers:
                for handle in self._hooks(layer.mlp, layer.layer_number):
                    stack.callback(handle.remove)
            yield

    def _hooks(self, module: Any, number: int) -> list[Any]:
        return [
            module.register_forward_pre_hook(lambda *_: self._begin(number, "forward")),
            module.register_forward_hook(lambda *_: self._end(number, "forward")),
            module.register_full_backward_pre_hook(lambda *_: self._begin(number, "backward")),
            module.register_full_backward_hook(lambda *_: self._end(number, "backward")),
        ]

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _begin(self, number: int, phase: str) -> None:
        self._open[number, phase] = self._mark()

    def _end(self, number: int, phase: str) -> None:
        begun = self._open.pop((number, phase), None)
        if begun is not None:
            self._intervals[number].append((begun, self._mark()))

    def pop(self) -> dict[int, float]:
        """Return and clear the seconds by layer (from 0); the device must have finished."""
        seconds = {
            number - 1: sum(self._seconds(begin, end) for begin, end in intervals)
            for number, intervals in self._intervals.items()
        }
        self._intervals.clear()
        return seconds

    def _seconds(self, begin: Any, end: Any) -> float:
        return float(1e-3 * begin.elapsed_time(end) if self._on_gpu else end - begin)
