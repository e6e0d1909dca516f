"""Start and stop megatron-core in this process: device, process groups, random seeds."""

import gc
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import util
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from parallel.engine.cpu_host import install_cpu_host
from parallel.engine.imports import import_engine
from parallel.errors import ParallelError
from parallel.layout.layout import Layout

Device = Literal["cpu", "cuda"]
GPU_PROMISES = ("MOESCALE_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
"""Set where a process was given GPUs: the first by our batch scripts, the others by
SLURM (sbatch(1), srun(1)), to their number or their indices."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """This rank of a started engine: its device and its place in the layout."""

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


def choose_device(requested: Literal["auto", "cpu", "cuda"]) -> Device:
    """Return the device to run on; `auto` takes CUDA where torch finds a GPU.

    Raises:
        ParallelError: CUDA was requested, or `auto` in a job that was given GPUs, and torch finds
            no GPU.
    """
    has_cuda = torch.cuda.is_available()
    if requested == "cuda" and not has_cuda:
        raise ParallelError(
            'parallel.device = "cuda", but torch finds no GPU here: run on a GPU machine,'
            ' or set parallel.device = "cpu"'
        )
    if requested == "auto" and not has_cuda and (promise := promised_gpus()):
        raise ParallelError(
            f'parallel.device = "auto", but this job has GPUs ({promise}) and torch finds none:'
            " install torch for CUDA and this driver, or look whether `nvidia-smi` shows them; to"
            ' run on the CPU all the same, set parallel.device = "cpu" (eval, generate: --device)'
        )
    return "cuda" if has_cuda and requested != "cpu" else "cpu"


def promised_gpus() -> str | None:
    """Return the variable that says that this process was given GPUs; None: none does."""
    for name in GPU_PROMISES:
        value = os.environ.get(name, "")
        if value.strip() not in ("", "0"):
            return f"{name}={value}"
    return None


def card_of_rank(local_rank: int) -> torch.device:
    """Return the GPU of a rank: its own among those of its node, which every rank sees.

    Raises:
        ParallelError: There are fewer, as on a smaller node, or where a launcher hides the others'.
    """
    num_cards = torch.cuda.device_count()
    if local_rank >= num_cards:
        raise ParallelError(
            f"LOCAL_RANK={local_rank}, but {socket.gethostname()} shows this rank {num_cards} GPUs:"
            " take nodes with a GPU for every rank, start fewer ranks on each, or let each rank see"
            " all GPUs (no --gpus-per-task, no CUDA_VISIBLE_DEVICES of one)"
        )
    return torch.device("cuda", local_rank)


def set_queues(layout: Layout) -> None:
    """Say how many queues of kernels this process has on its card, unless its environment does.

    CUDA reads it once, when a process first uses the card. megatron-core overlaps communication
    with products by the order of one queue (tensor_parallel/layers.py; up to Hopper); experts'
    exchanges overlap only where streams have queues of their own (transformer/moe/README.md).
    """
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "8" if layout.overlap_experts else "1")


def start_engine(layout: Layout, *, seed: int) -> Engine:
    """Join the process group that the environment names, and create the layout's groups.

    The environment is torchrun's (`RANK`, `LOCAL_RANK`, `WORLD_SIZE`, ...); without it this is the
    only rank.

    Raises:
        ParallelError: The device that is asked for is not there, or not for this rank.
    """
    import_engine()
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if choose_device(layout.device) == "cuda":
        device = card_of_rank(local_rank)
        set_queues(layout)
        torch.cuda.set_device(device)
    else:
        install_cpu_host()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # Twice the watchdog's time-out: it must end the rank first, since its message names the
    # collective.
    timeout_s = 2 * layout.timeout_s
    limit = timedelta(seconds=timeout_s)
    if world_size == 1:
        store = torch._C._distributed_c10d.HashStore()
        dist.init_process_group(backend, timeout=limit, store=store, rank=0, world_size=1)
    else:
        shared, rank, world_size = next(rendezvous("env://", timeout=limit))
        # torchrun's own store survives a restart and still holds gloo's old addresses.
        fresh = PrefixStore(f"start-{restart_count()}", shared)
        dist.init_process_group(
            backend, timeout=limit, store=fresh, rank=rank, world_size=world_size
        )
    _fix_recompute_without_te()
    _create_groups(layout, timeout_s)
    _set_seeds(seed)
    from megatron.core import parallel_state

    _freeze_imports()
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
    """Act as one rank of a fake process group, on a CPU.

    Models can be built as that rank would hold them; collectives return at once, with nothing.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    import_engine()
    install_cpu_host()
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=num_ranks)
    try:
        _create_groups(layout, 60.0, gloo=False)
        _set_seeds(0)
        yield
    finally:
        stop_engine()


def restart_count() -> int:
    """Return how many times torchrun has restarted this rank after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def stop_engine() -> None:
    """Destroy all process groups."""
    from megatron.core import parallel_state

    parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


@cache
def _freeze_imports() -> None:
    """Exclude import-time objects from garbage collection (`gc.freeze`), once a process.

    megatron-core collects twice per checkpoint; walking these objects took 0.3 s of training time.
    """
    gc.freeze()


def _fix_recompute_without_te() -> None:
    """Make selective recomputation work without Transformer Engine.

    In 0.16 to 0.19 `CheckpointWithoutOutput(fp8=False)` takes False for "FP8 is on" and asks
    Transformer Engine for its state; None means off.
    """
    from megatron.core.tensor_parallel.random import CheckpointWithoutOutput

    if util.find_spec("transformer_engine") is None:
        CheckpointWithoutOutput.__init__.__defaults__ = (None,)


def _create_groups(layout: Layout, timeout_s: float, *, gloo: bool = True) -> None:
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


def _set_seeds(seed: int) -> None:
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed, force_reset_rng=True)
