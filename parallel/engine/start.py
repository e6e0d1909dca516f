"""Starting and stopping megatron-core on this process: device, process groups, seeds.

Everything that differs between megatron-core 0.16 and 0.19 and concerns the engine is here.
"""

import gc
import logging
import os
import random
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import metadata, util
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from parallel.engine.cpu_host import install_cpu_host
from parallel.errors import ParallelError
from parallel.layout.layout import Layout

Device = Literal["cpu", "cuda"]
ENGINE_VERSION: str = metadata.version("megatron-core")
_MINOR = tuple(int(part) for part in ENGINE_VERSION.split(".")[:2])
BEFORE_BUILDERS = _MINOR < (0, 17)
"""megatron-core 0.16 takes specs of submodules where later versions take builders."""
_ROUTER_LOSS_FAULT = _MINOR < (0, 19)
_HAS_MOE_LOGGING = _MINOR >= (0, 18)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One rank of a running engine."""

    device: torch.device
    layout: Layout
    rank: int
    local_rank: int
    world_size: int
    dp: int
    """Data-parallel ranks."""
    dp_rank: int
    hostname: str

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files."""
        return self.rank == 0


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> Device:
    """Return the device to run on.

    Raises:
        ParallelError: CUDA was asked for and is not there.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ParallelError(
            'parallel.device = "cuda", but torch finds no GPU here: run on a GPU machine,'
            ' or set parallel.device = "cpu"'
        )
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


def quieten_engine() -> None:
    """Silence what megatron-core and torch say of missing kernels and of deprecated calls.

    Which kernels ran is in the run's record. Call it before importing megatron-core.
    """
    warnings.filterwarnings("ignore", module=r"megatron\.")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d")
    for name in ("megatron", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)


def start_engine(layout: Layout, *, seed: int) -> Engine:
    """Join the process group named by the environment (alone without one) and lay out groups."""
    quieten_engine()
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if choose_device(layout.device) == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        install_cpu_host()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # The watchdog comes first: its message names the collective.
    timeout_s = 2 * layout.timeout_s
    limit = timedelta(seconds=timeout_s)
    if world_size == 1:
        store = torch._C._distributed_c10d.HashStore()
        dist.init_process_group(backend, timeout=limit, store=store, rank=0, world_size=1)
    else:
        shared, rank, world_size = next(rendezvous("env://", timeout=limit))
        # torchrun's own store outlives a restart, and gloo's old addresses are still in it.
        fresh = PrefixStore(f"start-{restart_count()}", shared)
        dist.init_process_group(
            backend, timeout=limit, store=fresh, rank=rank, world_size=world_size
        )
    _recompute_without_fp8()
    _lay_out_groups(layout, timeout_s)
    _seed_everything(seed)
    from megatron.core import parallel_state

    _keep_imports_out_of_collections()
    return Engine(
        device=device,
        layout=layout,
        rank=rank,
        local_rank=local_rank,
        world_size=world_size,
        dp=parallel_state.get_data_parallel_world_size(),
        dp_rank=parallel_state.get_data_parallel_rank(),
        hostname=socket.gethostname(),
    )


@contextmanager
def fake_rank(layout: Layout, rank: int, num_ranks: int) -> Iterator[None]:
    """Be one rank of many that are not there: what it would hold can be asked, nothing be sent."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    quieten_engine()
    install_cpu_host()
    # torch's backend "fake" answers every collective at once, with nothing.
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=num_ranks)
    try:
        _lay_out_groups(layout, 60.0, gloo=False)
        _seed_everything(0)
        yield
    finally:
        stop_engine()


def restart_count() -> int:
    """Return how often torchrun has started this rank again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def stop_engine() -> None:
    """Leave all process groups, and forget what the models of this start left behind."""
    from megatron.core import parallel_state

    _recorded_router_losses()
    parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


@cache
def _keep_imports_out_of_collections() -> None:
    """Have garbage collection pass over what imports made: it stays anyhow.

    megatron-core collects twice for each checkpoint; the walk took 0.3 s of training's time.
    """
    gc.freeze()


def _recompute_without_fp8() -> None:
    """Let parts of layers be recomputed without Transformer Engine.

    In 0.16 to 0.19 `CheckpointWithoutOutput(fp8=False)` takes False for "FP8 is on" and asks
    Transformer Engine for its state; None means off.
    """
    from megatron.core.tensor_parallel.random import CheckpointWithoutOutput

    if util.find_spec("transformer_engine") is None:
        CheckpointWithoutOutput.__init__.__defaults__ = (None,)


def _lay_out_groups(layout: Layout, timeout_s: float, *, gloo: bool = True) -> None:
    from megatron.core import parallel_state

    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=layout.tp,
        pipeline_model_parallel_size=layout.pp,
        virtual_pipeline_model_parallel_size=layout.vpp if layout.vpp > 1 else None,
        context_parallel_size=layout.cp,
        expert_model_parallel_size=layout.ep,
        expert_tensor_parallel_size=layout.etp,
        distributed_timeout_minutes=max(1, round(timeout_s / 60)),
        order="tp-cp-ep-dp-pp",
        create_gloo_process_groups=gloo,
    )


def _seed_everything(seed: int) -> None:
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed, force_reset_rng=True)


def take_router_losses(layout: Layout, dp: int, num_layers: int) -> dict[str, torch.Tensor]:
    """Return and clear the router losses recorded since the last call.

    Each is [num_layers] (zero where a layer is dense), summed over micro-batches and averaged
    over data-parallel ranks; the same on every rank. A collective call. Own reduction, because
    megatron-core's asks gloo for averages, which it does not have.
    """
    values = _recorded_router_losses()
    names = sorted({name for rank in all_gather_objects(sorted(values)) for name in rank})
    losses = {}
    for name in names:
        loss = values.get(name, torch.zeros(num_layers)).float().cpu()
        dist.all_reduce(loss)
        losses[name] = loss / _ranks_averaged(name, layout, dp)
    return losses


def router_loss_factor(layout: Layout) -> int:
    """Return what router loss coefficients must be multiplied by for right gradients.

    With losses summed per token, 0.16 to 0.18 scale a router loss by the tokens of this rank, but
    divide the gradient by the tokens of all `tp * cp` ranks that share a sequence
    (`attach_and_log_load_balancing_loss`, `apply_z_loss`); 0.19 multiplies by their number.
    """
    return layout.tp * layout.cp if _ROUTER_LOSS_FAULT else 1


def _recorded_router_losses() -> dict[str, torch.Tensor]:
    """Take this rank's losses: up to 0.17 in `moe_utils`, later in `moe_logging`."""
    if not _HAS_MOE_LOGGING:
        from megatron.core.transformer.moe import moe_utils

        tracker = moe_utils.get_moe_layer_wise_logging_tracker()
        losses = {name: entry["values"].clone() for name, entry in tracker.items()}
        tracker.clear()
        return losses
    from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker

    tracker = get_moe_metrics_tracker()
    losses = {name: entry.values.clone() for name, entry in tracker.metrics.items()}
    tracker.metrics.clear()
    return losses


def _ranks_averaged(name: str, layout: Layout, dp: int) -> int:
    """Ranks that each hold a whole loss rather than a summand of it."""
    if name == "z_loss":
        return layout.tp * layout.cp * dp
    return 1 if name.startswith("global") else dp


def all_gather_objects(value: Any) -> list[Any]:
    """Collect one picklable object from every rank, on every rank."""
    if dist.get_world_size() == 1:
        return [value]
    objects: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(objects, value)
    return objects


def gather_objects(value: Any) -> list[Any] | None:
    """Collect one picklable object from every rank; the list on rank 0, None elsewhere."""
    if dist.get_world_size() == 1:
        return [value]
    objects: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, objects)
    return objects
