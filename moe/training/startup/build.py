"""Assembly of a trainer, in the order in which it happens."""

from collections.abc import Callable, Sequence
from typing import Any

from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)

from data.store.manifest import HELD_OUT, TRAIN
from moe.config.experiment import Experiment
from moe.cost.document_flops import DocumentFlops
from moe.model.build import build_model
from moe.model.fp8.emulation import emulate_fp8
from moe.routing.maps import RoutingMaps
from moe.routing.statistics import RoutingCounter
from moe.training.loader import open_loader
from moe.training.objective.dpo import DpoObjective
from moe.training.objective.micro_batches import MicroBatchRunner
from moe.training.objective.objectives import TokenObjective
from moe.training.optimization.guards import Guard
from moe.training.optimization.optimizer import build_optimizer, gathers_masters
from moe.training.startup.initial_weights import freeze, load_initial_weights
from moe.training.trainer import Trainer
from parallel.engine.start import Engine
from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision


def build_trainer(
    experiment: Experiment,
    engine: Engine,
    *,
    load_init: bool = True,
    on_micro_batch: Callable[[], None] = lambda: None,
) -> Trainer:
    """Build the model on this rank and all that trains it; a collective call.

    Args:
        experiment: What to train.
        engine: A running engine.
        load_init: Read the weights of `train.init`, where it is given; not needed if a checkpoint
            is loaded afterwards.
        on_micro_batch: Called before each forward pass.

    Raises:
        ConfigError: The model does not fit the kernels, or `train.init` or `train.trainable` the
            model.
        DataError: The store is missing or damaged, or does not fit.
    """
    train, layout, precision = experiment.train, experiment.parallel, experiment.precision
    loader, held_out = (
        open_loader(experiment, split, rank=engine.dp_rank, ranks=engine.dp)
        for split in (TRAIN, HELD_OUT)
    )
    model = build_model(experiment.model, layout, precision, seed=train.seed)
    if train.init is not None and load_init:
        load_initial_weights(experiment, model)
    freeze(train.trainable, model)
    chunks = [wrap_in_ddp(chunk, i, layout, precision) for i, chunk in enumerate(model)]
    fp8 = emulate_fp8(model, precision) if precision.fp8 == "emulated" else None
    guard = Guard(train)
    optimizer = build_optimizer(train, layout, precision, chunks, guard.check_grad_norm)
    configure_schedules(model[0].config, chunks, optimizer)
    routing = RoutingCounter(experiment.model, model)
    runner = MicroBatchRunner(experiment, engine.device, on_micro_batch)
    return Trainer(
        experiment=experiment,
        engine=engine,
        loader=loader,
        held_out=held_out,
        chunks=chunks,
        optimizer=optimizer,
        guard=guard,
        fp8=fp8,
        runner=runner,
        objective=DpoObjective(experiment, runner) if train.mode == "dpo" else TokenObjective(),
        flops=DocumentFlops(experiment.model),
        routing=routing,
        routing_maps=RoutingMaps(experiment.model, model, held_out.sources, runner.current_sources),
    )


def wrap_in_ddp(
    chunk: Any, index: int, layout: Layout, precision: Precision
) -> DistributedDataParallel:
    """Wrap a chunk in megatron-core's data parallelism, gradients reduced in FP32."""
    config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=layout.distributed_optimizer,
        overlap_grad_reduce=layout.overlap_grad_reduce,
        overlap_param_gather=layout.overlap_param_gather,
        fp8_param_gather=precision.fp8_parameters,
        reuse_grad_buf_for_mxfp8_param_ag=gathers_masters(precision),
    )
    return DistributedDataParallel(chunk.config, config, chunk, disable_bucketing=index > 0)


def configure_schedules(
    config: Any, chunks: Sequence[DistributedDataParallel], optimizer: Any
) -> None:
    """Set how megatron-core's schedules scale losses and complete gradients.

    `config` is the configuration that all chunks share.
    """
    config.grad_scale_func = optimizer.scale_loss
    config.finalize_model_grads_func = finalize_model_grads
    no_sync = [chunk.no_sync for chunk in chunks]
    config.no_sync_func = no_sync if len(chunks) > 1 else no_sync[0]
