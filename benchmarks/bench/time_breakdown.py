"""Where a training step's time goes: by component of the model, forward and backward.

Measured in separate steps, in which the device is synchronized wherever a component begins or
ends; the timed repeats run without these hooks.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.bench.instruments import synchronize
from benchmarks.bench.trainer import MeasuredTrainer

# Calls that wait for other ranks, as megatron-core makes them.
_COLLECTIVES = ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor",
                "all_to_all_single", "broadcast", "batch_isend_irecv")  # fmt: skip


class _Timers:
    """Seconds of named components, including what runs inside them."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._started: dict[tuple[str, int], float] = {}

    def start(self, name: str, owner: object) -> None:
        synchronize(self._device)
        self._started[name, id(owner)] = time.perf_counter()

    def stop(self, name: str, owner: object) -> None:
        synchronize(self._device)
        started = self._started.pop((name, id(owner)), None)
        if started is not None:
            self.seconds[name] += time.perf_counter() - started

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        marker = object()
        self.start(name, marker)
        try:
            yield
        finally:
            self.stop(name, marker)


def time_breakdown(subject: MeasuredTrainer, steps: int = 3) -> dict[str, float | None]:
    """Return mean seconds of a step by component; the components sum to `step`.

    `communication` is the time that the others spend in collectives; `None` with one rank.
    """
    device = subject.engine.device
    timers = _Timers(device)
    with ExitStack() as stack:
        for chunk in subject.trainer.chunks:
            _time_chunk(chunk.module, timers, stack)
        _time_method(subject.trainer.optimizer, "step", "optimizer", timers, stack)
        _time_method(subject.trainer.loader, "step", "data", timers, stack)
        for name in _COLLECTIVES:
            _time_method(dist, name, "communication", timers, stack)
        total = sum(subject.step() for _ in range(steps))
    inclusive_s = {name: seconds / steps for name, seconds in timers.seconds.items()}
    return _exclusive(inclusive_s, total / steps, subject)


def _exclusive(
    inclusive_s: dict[str, float], step_s: float, subject: MeasuredTrainer
) -> dict[str, float | None]:
    """Turn times of nested components into times that sum to the step."""
    get = inclusive_s.get
    named = ("attention", "router", "experts", "shared experts", "dense FFN")
    exclusive = {name: get(name, 0.0) for name in named if name in inclusive_s}
    if "sparse FFN" in inclusive_s:
        inner = sum(exclusive.get(name, 0.0) for name in ("router", "experts", "shared experts"))
        exclusive["dispatch"] = inclusive_s["sparse FFN"] - inner
    layers = get("decoder", 0.0) + get("decoder backward", 0.0)
    exclusive["norms and residuals"] = layers - sum(exclusive.values())
    has_head = any(chunk.module.post_process for chunk in subject.trainer.chunks)
    last = "head and loss" if has_head else "waiting for later stages"
    exclusive[last] = get("model", 0.0) - get("decoder", 0.0) + get("loss backward", 0.0)
    exclusive["optimizer"] = get("optimizer", 0.0)
    exclusive["data"] = get("data", 0.0)
    exclusive["other"] = step_s - sum(exclusive.values())
    communication = None if subject.engine.world_size == 1 else get("communication", 0.0)
    return {**exclusive, "step": step_s, "communication": communication}


def _time_chunk(model: Any, timers: _Timers, stack: ExitStack) -> None:
    """Time the components of a model chunk.

    The head has no module of its own in training (its loss is chunked): its forward time is the
    model's less the layers'; its backward time ends where the layers' backward begins.
    """
    _time_module(model, "model", timers, stack, backward=False)
    _time_decoder(model, timers, stack)
    for layer in model.decoder.layers:
        _time_module(layer.self_attention, "attention", timers, stack)
        is_sparse = hasattr(layer.mlp, "router")
        _time_module(layer.mlp, "sparse FFN" if is_sparse else "dense FFN", timers, stack)
        if is_sparse:
            _time_module(layer.mlp.router, "router", timers, stack)
            _time_module(layer.mlp.experts, "experts", timers, stack)
            shared = getattr(layer.mlp, "shared_experts", None)
            if shared is not None:
                _time_module(shared, "shared experts", timers, stack)


def _time_decoder(model: Any, timers: _Timers, stack: ExitStack) -> None:
    """Time all layers together: backward between the gradients of their output and input.

    Module hooks do not see the input, which is a keyword argument.
    """
    decoder = model.decoder

    def enter(_module: Any, _args: Any, values: dict[str, Any]) -> None:
        timers.start("decoder", decoder)
        hidden = values["hidden_states"]
        if hidden is not None and hidden.requires_grad:
            hidden.register_hook(lambda _gradient: timers.stop("decoder backward", decoder))

    def leave(_module: Any, _args: Any, output: Any) -> None:
        timers.stop("decoder", decoder)
        if output.requires_grad:
            output.register_hook(begin_backward)

    def begin_backward(_gradient: Any) -> None:
        timers.stop("loss backward", model)
        timers.start("decoder backward", decoder)

    handles = [
        decoder.register_forward_pre_hook(enter, with_kwargs=True),
        decoder.register_forward_hook(leave),
        model.register_forward_hook(lambda *_: timers.start("loss backward", model)),
    ]
    for handle in handles:
        stack.callback(handle.remove)


def _time_module(
    module: Any, name: str, timers: _Timers, stack: ExitStack, *, backward: bool = True
) -> None:
    handles = [
        module.register_forward_pre_hook(lambda *_: timers.start(name, module)),
        module.register_forward_hook(lambda *_: timers.stop(name, module)),
    ]
    if backward:
        handles += [
            module.register_full_backward_pre_hook(lambda *_: timers.start(name, module)),
            module.register_full_backward_hook(lambda *_: timers.stop(name, module)),
        ]
    for handle in handles:
        stack.callback(handle.remove)


def _time_method(owner: Any, attribute: str, name: str, timers: _Timers, stack: ExitStack) -> None:
    inner: Callable[..., Any] = getattr(owner, attribute)

    def timed(*args: Any, **kwargs: Any) -> Any:
        with timers.timing(name):
            return inner(*args, **kwargs)

    setattr(owner, attribute, timed)
    if isinstance(owner, type(dist)):
        stack.callback(setattr, owner, attribute, inner)
    else:  # without the instance's attribute, the class's method is back
        stack.callback(delattr, owner, attribute)
