"""Bytes that a rank really allocates for a model's state. The engine is imported in ranks only."""

from typing import Any

from moe.config.model import ModelConfig
from moe.config.train import TrainConfig
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision


def allocated_state(
    layout: Layout, train: TrainConfig, cases: list[tuple[ModelConfig, Precision]]
) -> list[tuple[int, int, int]]:
    """Build each model and its optimizer; returns bytes of parameters, gradients, optimizer."""
    from parallel.engine.start import start_engine, stop_engine

    start_engine(layout, seed=0)
    found = [_allocated(layout, train, model, precision) for model, precision in cases]
    stop_engine()
    return found


def _allocated(
    layout: Layout, train: TrainConfig, model: ModelConfig, precision: Precision
) -> tuple[int, int, int]:
    from moe.model.build import build_model
    from moe.training.optimization.optimizer import StubOptimizer, build_optimizer
    from moe.training.startup.build import wrap_in_ddp

    chunks = [
        wrap_in_ddp(chunk, index, layout, precision)
        for index, chunk in enumerate(build_model(model, layout, precision, seed=0))
    ]
    optimizer = build_optimizer(train, layout, precision, chunks)
    parameters = {
        storage.data_ptr(): storage.nbytes()
        for chunk in chunks
        for parameter in chunk.module.parameters()
        for storage in [parameter.data.untyped_storage()]
    }
    buffers = [b for chunk in chunks for b in (*chunk.buffers, *chunk.expert_parallel_buffers)]
    gradients = sum(buffer.grad_data.nbytes for buffer in buffers)
    states: dict[int, Any] = {}
    for one in optimizer.chained_optimizers:
        if isinstance(one, StubOptimizer):
            continue
        for parameter, values in one.optimizer.state.items():
            own = [value for value in values.values() if hasattr(value, "untyped_storage")]
            # The parameters of the inner optimizer are master copies, or parameters in FP32.
            for tensor in (*own, parameter.data):
                states[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    kept = sum(size for start, size in states.items() if start not in parameters)
    return sum(parameters.values()), gradients, kept
