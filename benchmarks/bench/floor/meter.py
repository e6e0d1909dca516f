"""Seconds of a step's floor: every product once as often as a step computes it, and the copies."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.bench.attention import MeasuredAttention
from benchmarks.bench.floor.kernels import PassKernels, Pool, copy_kernel, product_passes
from benchmarks.bench.floor.products import AttentionCore, Product
from benchmarks.bench.floor.traffic import Traffic
from benchmarks.bench.kernel_timing import burst_times
from benchmarks.bench.matmul import DTYPES

MIB = 2**20
WORKING_SETS = (MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB)
"""Bytes with which the memory rate is measured; the last exceeds every cache that we know."""


@dataclass
class FloorTimes:
    """Seconds of one measurement of the whole floor."""

    product_s: dict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))
    """By part, role and pass; of all calls of a step."""
    traffic_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By part."""
    rates: dict[int, float] = field(default_factory=dict)
    """Bytes/s by working set."""

    @property
    def total_s(self) -> float:
        """Seconds of everything, one after the other."""
        return sum(self.product_s.values()) + sum(self.traffic_s.values())


class FloorMeter:
    """Measures one floor again and again."""

    def __init__(
        self,
        products: Sequence[Product],
        cores: Sequence[AttentionCore],
        traffic: Sequence[Traffic],
        dtype: str,
        device: torch.device,
    ) -> None:
        """Take what is to be measured; `dtype` ("fp32", "bf16") where a product has none."""
        self.products, self.cores, self.traffic = products, cores, traffic
        self.kernel_names: dict[tuple[str, str, str], str] = {}
        """The fastest kernel of each kind of product, by the first measurement."""
        self._dtype, self._device = dtype, device
        self._pool = Pool(device)
        self._attention = [MeasuredAttention(core.shape, dtype, device) for core in cores]
        for attention in self._attention:
            attention.forward_backward(None)

    def measure(self) -> FloorTimes:
        """Run everything alone, warmed up; returns its seconds."""
        times = FloorTimes()
        for product in self.products:
            dtype = DTYPES[product.gemm.dtype or self._dtype]
            for one in product_passes(product.gemm, dtype, self._pool):
                key = (product.part, product.gemm.role, one.name)
                times.product_s[key] += product.calls * self._fastest_s(key, one)
        for core, attention in zip(self.cores, self._attention, strict=True):
            # A window's kernel may compute more pairs than it keeps: its floor is its share of
            # the full triangle.
            seconds = core.calls * core.visible_share
            forward_s, backward_s = attention.forward_backward(None)
            times.product_s[core.part, "attention core", "forward"] += seconds * forward_s
            times.product_s[core.part, "attention core", "backward"] += seconds * backward_s
        times.rates = {size: self._rate(size) for size in WORKING_SETS}
        for moved in self.traffic:
            rate = rate_at(moved.call_bytes, times.rates)
            times.traffic_s[moved.part] += moved.total_bytes / rate
        return times

    def _fastest_s(self, key: tuple[str, str, str], one: PassKernels) -> float:
        """Return seconds of a call of the fastest kernel, found the first time."""
        name = self.kernel_names.get(key)
        names = list(one.kernels) if name is None else [name]
        seconds = {name: self._call_s(one, name) for name in names}
        fastest = min(seconds, key=lambda name: seconds[name])
        self.kernel_names[key] = fastest
        return seconds[fastest]

    def _call_s(self, one: PassKernels, name: str) -> float:
        return burst_times(one.kernels[name], self._device, repeats=1, warmup=0)[0]

    def _rate(self, working_set: int) -> float:
        kernel = copy_kernel(working_set, self._pool)
        return working_set / burst_times(kernel, self._device, repeats=1, warmup=0)[0]


def rate_at(call_bytes: int, rates: dict[int, float]) -> float:
    """Return the memory rate, bytes/s, that an operation of this working set may reach at most.

    The highest rate of any measured working set that is as large, or of the next smaller one: what
    a cache holds is moved at the cache's rate, as if the step had left it there, and small calls on
    a GPU, which measure its launches, take the rate of larger ones.
    """
    smallest = max((size for size in rates if size <= call_bytes), default=min(rates))
    return max(rate for size, rate in rates.items() if size >= smallest)
