"""Seconds of kernels and links of one card, in the forms that a layer asks for."""

from functools import lru_cache
from typing import Any

from parallel.planner.step.seconds import PassSeconds
from parallel.planner.workload import Workload


class Clock:
    """The card's kernel and link models behind one front; kernels stubbed."""

    launch_seconds = 7e-6
    bw = 3.35e12 * 0.85
    nv = 360e9
    net = 42e9
    peak = {"bf16": 989.5e12, "fp8": 1979e12, "fp32": 60e12}
    eff = {"bf16": 0.72, "fp8": 0.60, "fp32": 0.8}
    sms_taken = 0.85

    def __init__(self, precision: str, gpus_per_domain: int = 8, **kw: Any) -> None:
        self.precision = precision
        self.domain = gpus_per_domain
        for k, v in kw.items():
            setattr(self, k, v)

    # kernels
    def traffic_seconds(self, nbytes: float) -> float:
        return 3e-6 + nbytes / self.bw

    def traffic(self, elements: float, nbytes: tuple[float, float]) -> tuple[float, float]:
        return self.traffic_seconds(elements * nbytes[0]), self.traffic_seconds(elements * nbytes[1])

    def gemm(self, m: float, n: float, k: float, precision: str) -> float:
        import math
        tiles = math.ceil(m / 128) * math.ceil(n / 256)
        waves = math.ceil(tiles / 132) / (tiles / 132)
        w = 1 + 0.5 * (waves - 1)
        eff = self.eff[precision] * k / (k + 400)
        return max(2 * m * n * k / (self.peak[precision] * eff) * w, (m * k + k * n + m * n) * 2 / self.bw) + 3e-6

    def cast_seconds(self, elements: float) -> float:
        return 0 if self.precision == "bf16" else self.traffic_seconds(6 * elements)

    def product(self, s: PassSeconds, m: int, n: int, k: int, precision: str | None = None, term="matmul") -> tuple[float, float]:
        p = precision or self.precision
        f = self.gemm(m, n, k, p)
        b = self.gemm(m, k, n, p) + self.gemm(n, k, m, p)
        s.add(term, f, b)
        if p == "fp8":
            s.add("fp8_cast", self.cast_seconds(m * k), self.cast_seconds(m * n))
        return f, b

    # tensor parallel
    def domain_bw(self, ranks: int, stride: int = 1) -> float:
        return self.nv if ranks * stride <= self.domain else self.net

    def ring(self, nbytes: float, ranks: int, stride: int = 1) -> float:
        if ranks == 1:
            return 0.0
        if ranks * stride <= self.domain:
            return 10e-6 + nbytes * (ranks - 1) / ranks / self.nv
        inside = max(1, self.domain // stride)
        # hierarchical: every card of the node carries a share
        return 25e-6 + nbytes * (ranks - 1) / ranks / (self.net * min(inside, 8))

    def _tp(self, s: PassSeconds, work: Workload, width: int, fwd: int, bwd: int, cover: tuple[float, float]) -> None:
        tp = work.layout.tp
        if tp == 1:
            return
        t = self.ring(work.tokens * width * 2, tp)
        if work.execution.overlap_tp:
            f = max(fwd * t / tp, fwd * t - 0.8 * cover[0]) + 0.1 * fwd * t
            b = max(bwd * t / tp, bwd * t - 0.8 * cover[1]) + 0.1 * bwd * t
        else:
            f, b = fwd * t, bwd * t
        s.add("tensor_parallel", f, b)

    def column_parallel(self, s: PassSeconds, work: Workload, n: int, k: int, precision: str | None = None) -> None:
        cover = self.product(s, work.tokens, n, k, precision)
        self._tp(s, work, k, 1, 1, cover)

    def row_parallel(self, s: PassSeconds, work: Workload, n: int, k: int) -> None:
        cover = self.product(s, work.tokens, n, k)
        self._tp(s, work, n, 1, 1, cover)

    def reduce_scatter(self, s: PassSeconds, work: Workload, width: int) -> None:
        self._tp(s, work, width, 1, 1, (0.0, 0.0))

    # attention
    def attention(self, work: Workload, window: int | None) -> tuple[float, float]:
        sh = work.shape
        cp = work.layout.cp
        seq = work.batch.seq_len
        span = seq / 2 if window is None or window >= seq else window
        fl = 2 * work.tokens * span * (sh.qk_head_dim + sh.v_head_dim) * sh.num_heads / work.layout.tp
        pk = self.peak["bf16"]
        e = 0.62 * (seq / cp) / (seq / cp + 1500)
        f = fl / (pk * e) + 8e-6
        return f, 3.0 * f

    def context_exchange(self, work: Workload, window: int | None) -> tuple[float, float]:
        cp = work.layout.cp
        if cp == 1:
            return 0.0, 0.0
        sh = work.shape
        kv = work.tokens * max(1, sh.num_kv_heads // work.layout.tp) * (sh.qk_head_dim + sh.v_head_dim) * 2
        bw = self.nv if cp * work.layout.tp <= self.domain else self.net
        comm = (cp - 1) * kv / bw
        f, b = self.attention(work, window)
        return max(0.1 * comm, comm - 0.8 * f), max(0.2 * comm, 2 * comm - 0.8 * b)

    # experts
    def routed_experts(self, s: PassSeconds, work: Workload) -> None:
        sh, lay = work.shape, work.layout
        groups = sh.num_experts // lay.ep
        rows = work.routed_tokens
        inner = sh.expert_ffn_hidden_size // lay.expert_tp
        for n, k in (((1 + sh.is_gated) * inner, sh.hidden_size), (sh.hidden_size, inner)):
            per = rows / groups
            f = self.gemm(rows, n, k, self.precision) * (1 + 60 / max(per, 1))
            wg = self.gemm(rows, k, n, self.precision) * (1 + 60 / max(per, 1))
            wgrad = max(2 * rows * n * k / (self.peak[self.precision] * self.eff[self.precision] * per / (per + 400)), groups * n * k * 10 / self.bw)
            s.add("expert_matmul", f, wg + wgrad)
            if self.precision == "fp8":
                s.add("fp8_cast", self.cast_seconds(rows * k), self.cast_seconds(rows * n))
        # permute twice each way
        h = sh.hidden_size
        byt = 2 * (2 * rows * h * 2) if lay.ep > 1 else (2 * rows * h * 2)
        s.add("memory_bound", self.traffic_seconds(byt), self.traffic_seconds(byt))

    def exchange_seconds(self, work: Workload) -> float:
        sh, lay = work.shape, work.layout
        ep = lay.ep
        nbytes = work.residual_tokens * sh.hidden_size * 2
        disp = lay.dispatcher if lay.dispatcher != "flex" else lay.flex_backend
        nodes = max(1, ep * lay.expert_tp // self.domain)
        k = sh.top_k
        if disp == "alltoall":
            inter = nbytes * k * (nodes - 1) / nodes
            intra = nbytes * k * (min(ep, 8) - 1) / min(ep, 8) / nodes
            return 40e-6 + max(inter / self.net, intra / self.nv)
        inter = nbytes * nodes * (1 - (1 - 1 / nodes) ** k) * (nodes - 1) / nodes
        e = min(ep, 8)
        intra = nbytes * e * (1 - (1 - 1 / e) ** k)
        return 30e-6 + max(inter / self.net, intra / (self.nv * 0.55))

    def expert_exchange(self, s: PassSeconds, work: Workload) -> None:
        lay = work.layout
        if lay.ep * lay.expert_tp == 1:
            return
        t = 2 * self.exchange_seconds(work)
        if lay.overlap_experts:
            s.add("expert_exchange", 0.25 * t, 0.25 * t)
        else:
            s.add("expert_exchange", t, t)

    # dp
    def reduce_gradients(self, nbytes: float, ranks: int, stride: int) -> float:
        return self.ring(nbytes, ranks, stride)

    gather_weights = reduce_gradients
    def send(self, work: Workload) -> float:
        return 15e-6 + work.residual_tokens * work.shape.hidden_size * 2 / self.net
