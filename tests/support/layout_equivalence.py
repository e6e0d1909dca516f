"""What ranks compute in the engine's tests, and full tensors assembled from their shards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe.config.experiment import Experiment, make_experiment

PARAMETERS_IN_BUCKET = 1000
FullTensors = dict[str, NDArray[np.float32]]
MODEL: dict[str, Any] = {
    "num_layers": 4,
    "hidden_size": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "ffn_hidden_size": 64,
    "vocab_size": 264,
    "max_seq_len": 64,
    "qk_norm": "full",
    "moe": {
        "num_experts": 8,
        "top_k": 2,
        "expert_ffn_hidden_size": 32,
        "shared_expert_ffn_hidden_size": 16,
        "first_dense_layers": 1,
        "aux_loss_coefficient": 0.02,
        "z_loss_coefficient": 0.002,
    },
}
TRAIN: dict[str, Any] = {
    "steps": 20,
    "seq_len": 32,
    "micro_batch_size": 2,
    "global_batch_size": 4,
    "learning_rate": 3e-3,
    "warmup_steps": 4,
    "seed": 3,
}


@dataclass(frozen=True)
class Shard:
    """One rank's shard of a full tensor."""

    key: str
    global_shape: tuple[int, ...]
    offset: tuple[int, ...]
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Curve:
    """What one rank measured at every step of a run, and its shards of the result."""

    losses: list[float]
    grad_norms: list[float]
    router_losses: list[dict[str, float | None]]
    tokens: list[int]
    parameters: list[Shard]


def make(store: Path, layout: dict[str, Any] | None = None, **sections: Any) -> Experiment:
    """Return the experiment of these tests, laid out, with keys of its sections changed."""
    values: dict[str, Any] = {
        "model": MODEL | sections.pop("model", {}),
        "train": TRAIN | sections.pop("train", {}),
        "data": {"store": str(store), "prefetch_steps": 0},
        "parallel": {"device": "cpu"} | (layout or {}),
    }
    return make_experiment(values | sections)


def train_curve(experiment: Experiment, without: str | None = None) -> Curve:
    """Train; `without` takes one of our corrections of megatron-core away."""
    with started(experiment, without) as trainer:
        return _curve(trainer, experiment.train.steps)


def _curve(trainer: Any, steps: int) -> Curve:
    from moe.training.logs.aux_losses import pop_mean_aux_losses
    from moe.training.step import train_step

    results, router_losses = [], []
    for index in range(steps):
        results.append(train_step(trainer, index))
        router_losses.append(pop_mean_aux_losses(trainer))
    trainer.wait_for_param_gather()
    return Curve(
        losses=[result.loss for result in results],
        grad_norms=[result.grad_norm for result in results],
        router_losses=router_losses,
        tokens=[result.tokens for result in results],
        parameters=shards(trainer.chunks),
    )


def first_gradients(experiment: Experiment, without: str | None = None) -> list[Shard]:
    """Return this rank's shards of the first step's gradients.

    Needs `distributed_optimizer = false`, under which every rank has its gradients complete.
    """
    with started(experiment, without) as trainer:
        return _gradients(trainer)


def _gradients(trainer: Any) -> list[Shard]:
    import torch

    with torch.no_grad():
        trainer.optimizer.zero_grad()
        with torch.enable_grad():
            trainer.forward_backward(trainer.loader.step(0), forward_only=False)
        for chunk in trainer.chunks:
            for parameter in chunk.module.parameters():
                parameter.data.copy_(parameter.main_grad)
        return shards(trainer.chunks)


@dataclass(frozen=True)
class Observed:
    """What one rank computed under a layout: all that must not depend on it."""

    weights: list[Shard]
    """Of the untrained model."""
    gradients: list[Shard] | None
    """Of the first step; None where the layout needs the distributed optimizer."""
    curve: Curve


def observe(experiment: Experiment) -> Observed:
    """Compute initial weights and first gradients, then train from the start, in one engine."""
    from moe.training.logs.aux_losses import pop_mean_aux_losses
    from moe.training.startup.build import build_trainer
    from parallel.engine.start import start_engine, stop_engine

    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    _use_many_buckets()
    gradients = None
    if not experiment.parallel.overlap_param_gather:
        plain = experiment.parallel.model_copy(update={"distributed_optimizer": False})
        trainer = build_trainer(experiment.model_copy(update={"parallel": plain}), engine)
        gradients = _gradients(trainer)
        pop_mean_aux_losses(trainer)
        trainer.close()
    trainer = build_trainer(experiment, engine)
    weights = [replace(shard, values=shard.values.copy()) for shard in shards(trainer.chunks)]
    curve = _curve(trainer, experiment.train.steps)
    trainer.close()
    stop_engine()
    return Observed(weights, gradients, curve)


def _use_many_buckets() -> None:
    """Cut parameters into many buckets, as a model of 10**9 is by buckets of 40 million."""
    from moe.training.startup import build

    config = partial(build.DistributedDataParallelConfig, bucket_size=PARAMETERS_IN_BUCKET)
    build.DistributedDataParallelConfig = config  # type: ignore[misc,assignment]


@contextmanager
def started(experiment: Experiment, without: str | None = None) -> Iterator[Any]:
    """A trainer of this rank on a running engine."""
    from moe.training.startup.build import build_trainer
    from parallel.engine.start import start_engine, stop_engine

    if without is not None:
        _take_away(without)
    engine = start_engine(experiment.parallel, seed=experiment.train.seed)
    _use_many_buckets()
    trainer = build_trainer(experiment, engine)
    try:
        yield trainer
    finally:
        trainer.close()
        stop_engine()


def _take_away(correction: str) -> None:
    """Undo one correction in this process."""
    from moe.model import build
    from moe.model.norm import RMSNorm

    if correction == "expert_allreduce":
        build._mark_experts = lambda _chunk: None
    elif correction == "expert_norm_mark":
        _after_experts(lambda weight: setattr(weight, "tensor_model_parallel", False))
    elif correction == "norm_sequence_parallel":
        made = RMSNorm.__init__

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            made(self, *args, **kwargs)
            self.weight.sequence_parallel = False

        RMSNorm.__init__ = init  # type: ignore[method-assign]
    else:
        raise ValueError(correction)


def _after_experts(change: Any) -> None:
    from moe.model.experts import GroupedExperts

    made = GroupedExperts.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        for weight in (self.gate_up, self.down):
            change(weight)

    GroupedExperts.__init__ = init  # type: ignore[method-assign]


def shards(chunks: Sequence[Any]) -> list[Shard]:
    """Return this rank's shards of all parameters, with their offsets in the full tensors."""
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories

    found = []
    for chunk in chunks:
        state = chunk.module.sharded_state_dict()
        apply_factories(state)
        for shard in nested_values(state):
            if isinstance(shard, ShardedTensor):
                lead = (1,) * shard.prepend_axis_num
                values = shard.data.detach().float().cpu().reshape(*lead, *shard.data.shape)
                found.append(
                    Shard(shard.key, shard.global_shape, shard.global_offset, values.cpu().numpy())
                )
    return found


def assemble(ranks: Sequence[Sequence[Shard]], tolerance: float = 0.0) -> FullTensors:
    """Assemble full tensors; what several ranks hold must be the same on all of them.

    Raises:
        AssertionError: Ranks disagree about a shard, or no rank holds some of a tensor.
    """
    full: FullTensors = {}
    for shard in (shard for rank in ranks for shard in rank):
        target = full.setdefault(shard.key, np.full(shard.global_shape, np.nan, dtype=np.float32))
        window = tuple(
            slice(a, a + n) for a, n in zip(shard.offset, shard.values.shape, strict=True)
        )
        known = target[window]
        same = np.isnan(known) | (np.abs(known - shard.values) <= tolerance)
        assert same.all(), f"ranks disagree about {shard.key}"
        target[window] = shard.values
    for key, values in full.items():
        assert not np.isnan(values).any(), f"some of {key} is on no rank"
    return full


def worst_difference(one: FullTensors, other: FullTensors) -> tuple[float, str]:
    """Return the largest difference relative to its tensor's largest value, and the tensor."""
    assert one.keys() == other.keys()
    return max(
        (float(np.abs(one[key] - other[key]).max() / np.abs(one[key]).max().clip(1e-12)), key)
        for key in one
    )
