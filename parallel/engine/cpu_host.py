"""The one place that lets megatron-core run on a CPU.

megatron-core names CUDA literally in hundreds of places. In a process that uses no GPU,
`install_cpu_host` makes those names mean the CPU: devices become the CPU, streams and events become
inert, CUDA's random state becomes the CPU generator's. A process that uses a GPU is not changed.
Each adaptation states its reason and the versions of megatron-core that need it.
"""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Adaptation:
    """One change to torch or megatron-core in a CPU process."""

    reason: str
    versions: str
    apply: Callable[[], None]


class InertEvent:
    """Stands in for a CUDA event: on a CPU everything before it has already run."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None:
        """Do nothing."""

    def wait(self, *_: Any) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Return True: everything has run."""
        return True


class InertStream:
    """Stands in for a CUDA stream: operations on a CPU have run when they return."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def wait_stream(self, *_: Any) -> None:
        """Do nothing."""

    def wait_event(self, *_: Any) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""

    def record_event(self, *_: Any) -> InertEvent:
        """Return an event that is complete."""
        return InertEvent()


_STREAM = InertStream()


def install_cpu_host() -> None:
    """Apply every adaptation to this process, once."""
    if not getattr(torch, "_moescale_cpu_host", False):
        for adaptation in ADAPTATIONS:
            adaptation.apply()
        torch._moescale_cpu_host = True  # type: ignore[attr-defined]


def _make_cuda_names_inert() -> None:
    replacements: dict[str, Any] = {
        "current_device": lambda: CPU,
        "device_count": lambda: 0,
        "set_device": lambda *_: None,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "Event": InertEvent,
        "Stream": InertStream,
        "current_stream": lambda *_: _STREAM,
        "default_stream": lambda *_: _STREAM,
        "stream": lambda *_: contextlib.nullcontext(),
        "manual_seed": torch.manual_seed,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "max_memory_allocated": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
    }
    for name, replacement in replacements.items():
        setattr(torch.cuda, name, replacement)
    for name in ("range_push", "range_pop"):
        setattr(torch.cuda.nvtx, name, lambda *_: None)


def _keep_tensors_on_cpu() -> None:
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.Tensor.record_stream = lambda *_: None  # type: ignore[method-assign]


def _redirect_cuda_devices() -> None:
    factories = ("empty", "zeros", "ones", "full", "tensor", "arange", "rand", "randn", "randint",
                 "empty_like", "zeros_like", "ones_like", "full_like", "linspace")  # fmt: skip
    for name in factories:
        setattr(torch, name, _on_cpu(getattr(torch, name)))
    torch.Tensor.to = _on_cpu(torch.Tensor.to)  # type: ignore[method-assign]


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _names_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        kwargs.pop("pin_memory", None)
        if len(args) > 1 and _names_cuda(args[1]):
            args = (args[0], CPU, *args[2:])
        return function(*args, **kwargs)

    return call


def _names_cuda(device: Any) -> bool:
    return (isinstance(device, str) and device.startswith("cuda")) or (
        isinstance(device, torch.device) and device.type == "cuda"
    )


def _name_tensor_types_as_cuda() -> None:
    type_of = torch.Tensor.type

    def named(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:
            return type_of(self, *args, **kwargs)
        return str(type_of(self)).replace("torch.", "torch.cuda.", 1)

    torch.Tensor.type = named  # type: ignore[assignment,method-assign]


def _keep_random_state_on_cpu() -> None:
    from megatron.core.tensor_parallel import random

    random._get_cuda_rng_state = lambda *_, **__: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, *_, **__: torch.set_rng_state(state)


def _convert_split_sizes() -> None:
    from megatron.core.transformer.moe import token_dispatcher

    def to_host(tensor: Any, as_numpy: bool = False, record_stream: bool = False) -> Any:
        return tensor.numpy() if as_numpy and torch.is_tensor(tensor) else tensor

    token_dispatcher.maybe_move_tensor_to_cpu = to_host


def _support_uneven_gathers() -> None:
    gather, scatter = dist.all_gather, dist.reduce_scatter

    def all_gather(
        shards: list[torch.Tensor], own: torch.Tensor, group: Any = None, async_op: bool = False
    ) -> Any:
        if len({shard.shape for shard in shards}) == 1:
            return gather(shards, own, group=group, async_op=async_op)
        shards[dist.get_rank(group)].copy_(own)
        for rank, shard in enumerate(shards):
            dist.broadcast(shard, group=group, group_src=rank)
        return None

    def reduce_scatter(own: torch.Tensor, shards: list[torch.Tensor], **how: Any) -> Any:
        group = how.get("group")
        if len({shard.shape for shard in shards}) == 1:
            return scatter(own, shards, **how)
        for rank, shard in enumerate(shards):
            total = shard.contiguous()
            dist.reduce(total, group=group, group_dst=rank)
            if rank == dist.get_rank(group):
                own.copy_(total)
        return None

    setattr(dist, "all_gather", all_gather)  # noqa: B010
    setattr(dist, "reduce_scatter", reduce_scatter)  # noqa: B010


def _skip_single_rank_copies() -> None:
    from megatron.core.distributed import param_and_grad_buffer as buffers
    from megatron.core.transformer.moe import token_dispatcher

    buffers.dist_all_gather_func = _unless_single_rank(dist.all_gather_into_tensor)
    buffers.dist_reduce_scatter_func = _unless_single_rank(dist.reduce_scatter_tensor)
    sort_chunks = token_dispatcher.sort_chunks_by_idxs

    def sorted_chunks(
        tokens: torch.Tensor, sizes: Any, order: torch.Tensor, probs: Any = None, **how: Any
    ) -> Any:
        if torch.equal(order, torch.arange(len(order))):
            return tokens, probs
        return sort_chunks(tokens, sizes, order, probs=probs, **how)

    token_dispatcher.sort_chunks_by_idxs = sorted_chunks


def _unless_single_rank(collective: Callable[..., Any]) -> Callable[..., Any]:
    """Skip a collective of a single rank whose input is its output."""

    def call(output: torch.Tensor, own: torch.Tensor, *, async_op: bool = False, **how: Any) -> Any:
        if not async_op and output.data_ptr() == own.data_ptr() and how["group"].size() == 1:
            return None
        return collective(output, own, async_op=async_op, **how)

    return call


def _scale_gradients_in_place() -> None:
    from megatron.core.optimizer import clip_grads

    def scale(_chunk: int, _flag: Any, lists: list[list[torch.Tensor]], factor: float) -> None:
        assert lists[0] is lists[1]
        torch._foreach_mul_(lists[0], factor)

    clip_grads.multi_tensor_scale_impl = scale


def _define_missing_gemm() -> None:
    from megatron.core.transformer.moe import moe_utils

    if not hasattr(moe_utils, "te_general_gemm"):
        moe_utils.te_general_gemm = None


def _silence_missing_kernels() -> None:
    """Import, silently, the modules that warn without Transformer Engine or apex."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        __import__("megatron.core.models.gpt")


ADAPTATIONS: tuple[Adaptation, ...] = (
    Adaptation(
        "importing without Transformer Engine or apex warns; the run record names the kernels",
        "0.16-0.19",
        _silence_missing_kernels,
    ),
    Adaptation("devices, streams, events and seeds are requested from CUDA", "0.16-0.19",
               _make_cuda_names_inert),
    Adaptation("tensors are moved with .cuda() and recorded on streams", "0.16-0.19",
               _keep_tensors_on_cpu),
    Adaptation('buffers are made with the literal device="cuda", or pinned', "0.16-0.19",
               _redirect_cuda_devices),
    Adaptation("optimizers and clipping compare Tensor.type() with torch.cuda.* names",
               "0.16-0.19", _name_tensor_types_as_cuda),
    Adaptation("the random-state tracker saves and restores CUDA generators", "0.16-0.19",
               _keep_random_state_on_cpu),
    Adaptation("all-to-all split sizes become lists only when they were CUDA tensors",
               "0.16-0.19", _convert_split_sizes),
    Adaptation("gloo gathers tensors of one size only; expert-TP ranks receive tokens unevenly",
               "0.16-0.19", _support_uneven_gathers),
    Adaptation("gloo copies a rank's tensors to itself; chunks in order are split and joined",
               "0.16-0.19", _skip_single_rank_copies),
    Adaptation("without apex, clipping scales a copy of each gradient and copies it back",
               "0.16-0.19", _scale_gradients_in_place),
    Adaptation("te_general_gemm is an undefined name without Transformer Engine", "0.16",
               _define_missing_gemm),
)  # fmt: skip
