"""What a training step keeps in memory, counted from the tensors themselves."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench.instruments import process_bytes
from benchmarks.bench.trainer import MeasuredTrainer


def memory_by_kind(subject: MeasuredTrainer) -> dict[str, Any]:
    """Return bytes on this rank: parameters, gradients, optimizer, activations, peak.

    Activations are what one micro-batch's forward pass saves for its backward pass, each storage
    once, weights left out. `peak_bytes` is the device's peak of allocated memory on a GPU; on a
    CPU it is the process's peak resident size, with the libraries and the benchmark itself.
    """
    trainer = subject.trainer
    weights = [p for chunk in trainer.chunks for p in chunk.parameters()]
    gradients = [p.main_grad if hasattr(p, "main_grad") else p.grad for p in weights]
    state = [
        value
        for optimizer in _inner_optimizers(trainer.optimizer)
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor)
    ]
    mains = [
        p
        for optimizer in _inner_optimizers(trainer.optimizer)
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    known = _storages(weights)
    on_gpu = subject.engine.device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated(subject.engine.device) if on_gpu else process_bytes("VmHWM")
    )
    return {
        "parameters_bytes": sum(known.values()),
        "gradients_bytes": sum(_storages(g for g in gradients if g is not None).values()),
        "optimizer_bytes": sum(
            size for key, size in _storages([*state, *mains]).items() if key not in known
        ),
        "activations_bytes": _saved_bytes(subject, known),
        "peak_bytes": peak,
        "peak_is": "device memory allocated" if on_gpu else "process resident size",
    }


def _inner_optimizers(optimizer: Any) -> list[Any]:
    chained = getattr(optimizer, "chained_optimizers", [optimizer])
    return [part.optimizer for part in chained]


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return bytes by storage: views of one storage count once."""
    found = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return found


def _saved_bytes(subject: MeasuredTrainer, weights: dict[int, int]) -> int:
    """Run one micro-batch and add up what its forward pass saves."""
    saved: dict[int, int] = {}
    keep: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
            # Kept alive, so that no later tensor takes the same address.
            keep.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        subject.trainer.forward_backward(subject.trainer.loader.step(0)[:1], forward_only=False)
    subject.trainer.router_losses()
    return sum(saved.values())
