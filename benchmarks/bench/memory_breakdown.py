"""Memory of a training step by kind, counted from the tensors themselves."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench.trainer import MeasuredTrainer
from moe.training.logs.aux_losses import pop_mean_aux_losses
from parallel.hardware.host_memory import process_bytes


def memory_breakdown(subject: MeasuredTrainer) -> dict[str, Any]:
    """Return bytes on this rank: parameters, gradients, optimizer, activations, peak.

    Activations are what one micro-batch's forward pass saves for its backward pass: each storage
    counts once, weights do not. `peak_bytes` is the device's peak of allocated memory on a GPU; on
    a CPU it is the process's peak resident size, including libraries and the benchmark itself.
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
    main_weights = [
        p
        for optimizer in _inner_optimizers(trainer.optimizer)
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    weight_storages = _storages(weights)
    on_gpu = subject.engine.device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated(subject.engine.device) if on_gpu else process_bytes("VmHWM")
    )
    return {
        "parameters_bytes": sum(weight_storages.values()),
        "gradients_bytes": sum(_storages(g for g in gradients if g is not None).values()),
        "optimizer_bytes": sum(
            size
            for address, size in _storages([*state, *main_weights]).items()
            if address not in weight_storages
        ),
        "activations_bytes": _saved_bytes(subject, weight_storages),
        "peak_bytes": peak,
        "peak_is": "device memory allocated" if on_gpu else "process resident size",
    }


def _inner_optimizers(optimizer: Any) -> list[Any]:
    chained = getattr(optimizer, "chained_optimizers", [optimizer])
    return [wrapper.optimizer for wrapper in chained]


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return bytes by storage address: views of one storage count once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _saved_bytes(subject: MeasuredTrainer, weight_storages: dict[int, int]) -> int:
    """Run one micro-batch and return the bytes that its forward pass saves."""
    saved: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weight_storages:
            saved[storage.data_ptr()] = storage.nbytes()
            # So that no later tensor has the same address.
            alive.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        subject.trainer.forward_backward(subject.trainer.loader.step(0)[:1], forward_only=False)
    pop_mean_aux_losses(subject.trainer)
    return sum(saved.values())
