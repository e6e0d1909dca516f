"""`moe bench collectives`: what ranks exchange in a second, by operation and size."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.bench.cases import Case
from benchmarks.bench.instruments import synchronize
from benchmarks.bench.session import BenchSession, bench_session
from benchmarks.errors import BenchmarkError
from parallel.measurement.intervals import median_interval

Exchange = Callable[[torch.Tensor, torch.Tensor], Any]


def _all_reduce(_into: torch.Tensor, of: torch.Tensor) -> None:
    dist.all_reduce(of)


def _all_gather(into: torch.Tensor, of: torch.Tensor) -> None:
    dist.all_gather_into_tensor(into, of.chunk(dist.get_world_size())[dist.get_rank()])


def _reduce_scatter(into: torch.Tensor, of: torch.Tensor) -> None:
    dist.reduce_scatter_tensor(into.chunk(dist.get_world_size())[dist.get_rank()], of)


def _all_to_all(into: torch.Tensor, of: torch.Tensor) -> None:
    dist.all_to_all_single(into, of)


# Bytes on the wire for a whole tensor of n bytes over r ranks, as nccl-tests' PERFORMANCE.md.
OPERATIONS: dict[str, tuple[Exchange, Callable[[int], float]]] = {
    "all_reduce": (_all_reduce, lambda ranks: 2 * (ranks - 1) / ranks),
    "all_gather": (_all_gather, lambda ranks: (ranks - 1) / ranks),
    "reduce_scatter": (_reduce_scatter, lambda ranks: (ranks - 1) / ranks),
    "all_to_all": (_all_to_all, lambda ranks: (ranks - 1) / ranks),
}


def run(
    sizes: Sequence[int],
    *,
    repeats: int,
    warmup: int,
    overrides: Sequence[str],
    out: Path | None,
) -> list[dict[str, Any]]:
    """Measure every operation at every size (bytes of the whole tensor).

    Raises:
        BenchmarkError: There is only one rank.
    """
    with bench_session(overrides) as session:
        ranks = session.engine.world_size
        if ranks < 2:
            raise BenchmarkError(
                "collectives need two or more ranks: add --nproc 2, or start under torchrun or srun"
            )
        cases = [
            Case(
                {"operation": name, "bytes": size, "ranks": ranks, "repeats": repeats},
                partial(measure, name, size, session, repeats, warmup),
            )
            for name in OPERATIONS
            for size in sizes
        ]
        return session.run("collectives", cases, out)


def measure(
    name: str, size: int, session: BenchSession, repeats: int, warmup: int
) -> dict[str, Any]:
    """Time one operation; the slowest rank's time counts."""
    exchange, wire_share = OPERATIONS[name]
    device, ranks = session.engine.device, session.engine.world_size
    elements = max(1, size // 4 // ranks) * ranks
    of = torch.ones(elements, device=device)
    into = torch.empty_like(of)
    times = torch.zeros(repeats, dtype=torch.float64)
    for number in range(warmup + repeats):
        dist.barrier()
        synchronize(device)
        begin = time.perf_counter()
        exchange(into, of)
        synchronize(device)
        if number >= warmup:
            times[number - warmup] = time.perf_counter() - begin
        of.fill_(1.0)
    dist.all_reduce(times, op=dist.ReduceOp.MAX)
    taken = median_interval(times.tolist())
    rate = 4 * elements / taken.median
    return {
        "time_s": taken.to_json(),
        "algorithm_bytes_per_s": rate,
        "bus_bytes_per_s": rate * wire_share(ranks),
        "backend": dist.get_backend(),
    }
