"""Fake meters: a clock moved by hand, an NVML with faults, ranks in threads."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.energy.callback import EnergyCallback
from benchmarks.energy.sources.nvml import NvmlSource
from benchmarks.energy.sources.selection import SourceSelection
from moe.config.energy import EnergyConfig
from moe.runs.callbacks import RankContext


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeGpu:
    """A board of constant power whose counter moves every 100 ms, in millijoules."""

    def __init__(self, clock: FakeClock, watts: float, *, start_mj: int = 5_000_000) -> None:
        self.clock, self.watts, self.start_mj = clock, watts, start_mj
        self.born = clock.now
        self.modulus = 2**64
        self.vanished = False
        self.mig = False

    @property
    def energy_mj(self) -> int:
        ticks = int((self.clock.now - self.born) / 0.1 + 1e-9)
        return (self.start_mj + round(ticks * 0.1 * self.watts * 1000)) % self.modulus

    def reset(self) -> None:
        """Restart the counter at zero, as a driver reload does."""
        self.start_mj, self.born = 0, self.clock.now


class FakeNvml:
    """The part of `pynvml` that the meter uses."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 - its name in pynvml
        pass

    def __init__(self, gpus: dict[str, FakeGpu]) -> None:
        self.gpus = gpus

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:  # noqa: N802
        if uuid not in self.gpus:
            raise self.NVMLError("Not Found")
        return self.gpus[uuid]

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> tuple[int, int]:  # noqa: N802
        return int(gpu.mig), int(gpu.mig)

    def nvmlDeviceGetPowerManagementLimitConstraints(  # noqa: N802
        self, gpu: FakeGpu
    ) -> tuple[int, int]:
        return 200_000, 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: FakeGpu) -> int:  # noqa: N802
        if gpu.vanished:
            raise self.NVMLError("GPU is lost")
        return gpu.energy_mj


def one_gpu(clock: FakeClock, watts: float = 500.0) -> tuple[FakeGpu, FakeNvml]:
    gpu = FakeGpu(clock, watts)
    return gpu, FakeNvml({"GPU-a": gpu})


class Rank:
    """One rank's energy callback over a given source."""

    def __init__(self, open_source: Callable[[], Any], clock: FakeClock, **config: Any) -> None:
        self.config = EnergyConfig(**{"idle_seconds": 0, **config})
        self.callback = EnergyCallback(
            self.config, lambda _config, _context: SourceSelection(open_source(), {}), clock
        )


def nvml_rank(nvml: FakeNvml, uuid: str, clock: FakeClock, **config: Any) -> Rank:
    return Rank(lambda: NvmlSource(uuid, nvml, clock), clock, **config)


class Ranks:
    """Runs the same calls on several ranks, each in its thread; `gather` meets at a barrier."""

    def __init__(self, members: list[Rank], run_dir: Path, *, silent: set[int] = frozenset()):
        self.members, self.run_dir = members, run_dir
        self.barrier = threading.Barrier(len(members))
        self.slots: list[Any] = [None] * len(members)
        self.silent = silent

    def context(self, rank: int) -> RankContext:
        def gather(thing: Any) -> list[Any] | None:
            self.slots[rank] = None if rank in self.silent else thing
            self.barrier.wait(60)
            found = list(self.slots) if rank == 0 else None
            self.barrier.wait(60)
            return found

        return RankContext(
            run_dir=self.run_dir,
            rank=rank,
            local_rank=rank,
            world_size=len(self.members),
            hostname="node",
            device="cuda",
            gather=gather,
        )

    def call(self, action: Callable[[EnergyCallback, RankContext], Any]) -> list[Any]:
        """Call `action(callback, context)` on every rank at once; returns all results."""
        results: list[Any] = [None] * len(self.members)
        errors: list[BaseException] = []

        def work(rank: int) -> None:
            try:
                results[rank] = action(self.members[rank].callback, self.context(rank))
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=work, args=(r,)) for r in range(len(self.members))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results

    def start(self, state: Any = None) -> None:
        self.call(lambda callback, context: callback.start(context, state))

    def phase(self, name: Any) -> None:
        self.call(lambda callback, _: callback.phase(name))

    def step(self, step: int, tokens: int) -> list[Any]:
        return self.call(lambda callback, _: callback.step(step, tokens)["energy_joules"])

    def finish(self) -> dict[str, Any]:
        section: dict[str, Any] = self.call(lambda callback, _: callback.finish())[0]["energy"]
        return section
