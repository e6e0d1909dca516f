"""`moe bench collectives`: what ranks exchange in a second, by operation and size."""

import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.instruments import synchronize
from benchmarks.bench.session import BenchSession, bench_session
from benchmarks.energy.source import boot_id
from benchmarks.errors import BenchmarkError
from parallel.engine.collectives import all_gather_objects
from parallel.measurement.intervals import median_interval

Collective = Callable[[torch.Tensor, torch.Tensor], Any]
"""Takes an output and an input tensor of the same size."""


def _all_reduce(_output: torch.Tensor, source: torch.Tensor) -> None:
    dist.all_reduce(source)


def _all_gather(output: torch.Tensor, source: torch.Tensor) -> None:
    dist.all_gather_into_tensor(output, source.chunk(dist.get_world_size())[dist.get_rank()])


def _reduce_scatter(output: torch.Tensor, source: torch.Tensor) -> None:
    dist.reduce_scatter_tensor(output.chunk(dist.get_world_size())[dist.get_rank()], source)


def _all_to_all(output: torch.Tensor, source: torch.Tensor) -> None:
    dist.all_to_all_single(output, source)


# Bytes on the bus for each byte of the complete tensor, over r ranks (nccl-tests, PERFORMANCE.md).
OPERATIONS: dict[str, tuple[Collective, Callable[[int], float]]] = {
    "all_reduce": (_all_reduce, lambda ranks: 2 * (ranks - 1) / ranks),
    "all_gather": (_all_gather, lambda ranks: (ranks - 1) / ranks),
    "reduce_scatter": (_reduce_scatter, lambda ranks: (ranks - 1) / ranks),
    "all_to_all": (_all_to_all, lambda ranks: (ranks - 1) / ranks),
}


def run(sizes: Sequence[int], options: BenchOptions) -> list[dict[str, Any]]:
    """Measure every operation at every size (bytes of the complete tensor).

    Raises:
        BenchmarkError: There is only one rank.
    """
    with bench_session(options) as session:
        ranks = session.engine.world_size
        if ranks < 2:
            raise BenchmarkError(
                "collectives need two or more ranks: add --nproc 2, or start under torchrun or srun"
            )
        nodes = len(set(all_gather_objects(boot_id(socket.gethostname()))))
        cases = [
            Case(
                {
                    "operation": name,
                    "bytes": size,
                    "ranks": ranks,
                    "nodes": nodes,
                    "repeats": options.repeats,
                },
                partial(measure, name, size, session),
            )  # fmt: skip
            for name in OPERATIONS
            for size in sizes
        ]
        return session.run("collectives", cases)


def measure(name: str, size: int, session: BenchSession) -> dict[str, Any]:
    """Time one operation; the slowest rank's time counts."""
    collective, bus_factor = OPERATIONS[name]
    device, ranks = session.engine.device, session.engine.world_size
    repeats, warmup = session.options.repeats, session.options.warmup
    elements = max(1, size // 4 // ranks) * ranks
    source = torch.ones(elements, device=device)
    output = torch.empty_like(source)
    seconds = torch.zeros(repeats, dtype=torch.float64)
    for number in range(warmup + repeats):
        dist.barrier()
        synchronize(device)
        begin = time.perf_counter()
        collective(output, source)
        synchronize(device)
        if number >= warmup:
            seconds[number - warmup] = time.perf_counter() - begin
        source.fill_(1.0)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    time_s = median_interval(seconds.tolist())
    rate = 4 * elements / time_s.median
    return {
        "time_s": time_s.to_json(),
        "algorithm_bytes_per_s": rate,
        "bus_bytes_per_s": rate * bus_factor(ranks),
        "backend": dist.get_backend(),
    }
