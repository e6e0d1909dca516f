"""Where a training step's time goes: by part of the model, forward and backward.

Measured in steps of their own, in which the device is waited for at every border; the timed
repeats run without these hooks.
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


class _Clocks:
    """Inclusive seconds of named parts."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._begins: dict[tuple[str, int], float] = {}

    def begin(self, name: str, owner: object) -> None:
        synchronize(self._device)
        self._begins[name, id(owner)] = time.perf_counter()

    def end(self, name: str, owner: object) -> None:
        synchronize(self._device)
        begin = self._begins.pop((name, id(owner)), None)
        if begin is not None:
            self.seconds[name] += time.perf_counter() - begin

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        marker = object()
        self.begin(name, marker)
        try:
            yield
        finally:
            self.end(name, marker)


def time_split(subject: MeasuredTrainer, steps: int = 3) -> dict[str, float | None]:
    """Return mean seconds of a step by part; the parts sum to `step`.

    `communication` is the part of the others that waits in collectives; `None` with one rank.
    """
    device = subject.engine.device
    clocks = _Clocks(device)
    with ExitStack() as stack:
        for chunk in subject.trainer.chunks:
            _watch_chunk(chunk.module, clocks, stack)
        _wrap(subject.trainer.optimizer, "step", "optimizer", clocks, stack)
        _wrap(subject.trainer.loader, "step", "data", clocks, stack)
        for name in _COLLECTIVES:
            _wrap(dist, name, "communication", clocks, stack)
        total = sum(subject.step() for _ in range(steps))
    return _parts({name: s / steps for name, s in clocks.seconds.items()}, total / steps, subject)


def _parts(
    inclusive: dict[str, float], step_s: float, subject: MeasuredTrainer
) -> dict[str, float | None]:
    """Turn inclusive times of nested parts into parts that sum to the step."""
    get = inclusive.get
    named = ("attention", "router", "experts", "shared experts", "dense FFN")
    parts = {name: get(name, 0.0) for name in named if name in inclusive}
    if "sparse FFN" in inclusive:
        inner = sum(parts.get(name, 0.0) for name in ("router", "experts", "shared experts"))
        parts["dispatch"] = inclusive["sparse FFN"] - inner
    layers = get("decoder", 0.0) + get("decoder backward", 0.0)
    parts["norms and residuals"] = layers - sum(parts.values())
    has_head = any(chunk.module.post_process for chunk in subject.trainer.chunks)
    last = "head and loss" if has_head else "waiting for later stages"
    parts[last] = get("model", 0.0) - get("decoder", 0.0) + get("loss backward", 0.0)
    parts["optimizer"] = get("optimizer", 0.0)
    parts["data"] = get("data", 0.0)
    parts["other"] = step_s - sum(parts.values())
    alone = subject.engine.world_size == 1
    return {**parts, "step": step_s, "communication": None if alone else get("communication", 0.0)}


def _watch_chunk(model: Any, clocks: _Clocks, stack: ExitStack) -> None:
    """Watch a model chunk's parts.

    The head has no module of its own in training (its loss is chunked): forward it is what the
    model takes beyond its layers; backward, what passes before the layers' backward begins.
    """
    _watch(model, "model", clocks, stack, backward=False)
    _watch_decoder(model, clocks, stack)
    for layer in model.decoder.layers:
        _watch(layer.self_attention, "attention", clocks, stack)
        is_sparse = hasattr(layer.mlp, "router")
        _watch(layer.mlp, "sparse FFN" if is_sparse else "dense FFN", clocks, stack)
        if is_sparse:
            _watch(layer.mlp.router, "router", clocks, stack)
            _watch(layer.mlp.experts, "experts", clocks, stack)
            shared = getattr(layer.mlp, "shared_experts", None)
            if shared is not None:
                _watch(shared, "shared experts", clocks, stack)


def _watch_decoder(model: Any, clocks: _Clocks, stack: ExitStack) -> None:
    """Watch all layers together: backward between the gradients of their output and input.

    Module hooks do not see the input, which comes as a keyword.
    """
    decoder = model.decoder

    def enter(_module: Any, _args: Any, values: dict[str, Any]) -> None:
        clocks.begin("decoder", decoder)
        hidden = values["hidden_states"]
        if hidden is not None and hidden.requires_grad:
            hidden.register_hook(lambda _gradient: clocks.end("decoder backward", decoder))

    def leave(_module: Any, _args: Any, output: Any) -> None:
        clocks.end("decoder", decoder)
        if output.requires_grad:
            output.register_hook(begin_backward)

    def begin_backward(_gradient: Any) -> None:
        clocks.end("loss backward", model)
        clocks.begin("decoder backward", decoder)

    handles = [
        decoder.register_forward_pre_hook(enter, with_kwargs=True),
        decoder.register_forward_hook(leave),
        model.register_forward_hook(lambda *_: clocks.begin("loss backward", model)),
    ]
    for handle in handles:
        stack.callback(handle.remove)


def _watch(
    module: Any, name: str, clocks: _Clocks, stack: ExitStack, *, backward: bool = True
) -> None:
    handles = [
        module.register_forward_pre_hook(lambda *_: clocks.begin(name, module)),
        module.register_forward_hook(lambda *_: clocks.end(name, module)),
    ]
    if backward:
        handles += [
            module.register_full_backward_pre_hook(lambda *_: clocks.begin(name, module)),
            module.register_full_backward_hook(lambda *_: clocks.end(name, module)),
        ]
    for handle in handles:
        stack.callback(handle.remove)


def _wrap(owner: Any, attribute: str, name: str, clocks: _Clocks, stack: ExitStack) -> None:
    inner: Callable[..., Any] = getattr(owner, attribute)

    def timed(*args: Any, **kwargs: Any) -> Any:
        with clocks.timing(name):
            return inner(*args, **kwargs)

    setattr(owner, attribute, timed)
    # A bound method is found on the class again; a module's function must be put back.
    is_own = isinstance(owner, type(dist))
    stack.callback(setattr, owner, attribute, inner) if is_own else stack.callback(
        delattr, owner, attribute
    )
