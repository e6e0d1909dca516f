"""`moe bench attention`: causal attention alone, torch's SDPA backends beside each other.

Shapes: B batch, N heads, G key-value heads, S sequence, D head dimension.
"""

import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.bench.cases import BenchOptions, Case
from benchmarks.bench.gemm import measured_peak, refuse_sections
from benchmarks.bench.instruments import synchronize
from benchmarks.bench.matmul import DTYPES, check_dtype
from benchmarks.bench.session import BenchSession, bench_session
from benchmarks.errors import BenchmarkError
from moe.config.experiment import load_model
from moe.config.model import ModelConfig
from parallel.hardware.probe import utilization
from parallel.measurement.intervals import median_interval

CHOICE = "torch's choice"
"""What a model gets: no backend is named, torch takes one."""
BACKENDS: dict[str, SDPBackend | None] = {
    CHOICE: None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
BACKWARD_FLOPS = 2.5
"""Of a backward pass over the forward pass: five products for two."""


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """One causal attention, without its projections."""

    batch_size: int
    seq_len: int
    num_heads: int
    num_kv_heads: int
    qk_head_dim: int
    v_head_dim: int

    @property
    def forward_flops(self) -> float:
        """FLOPs of both products, of which a causal mask leaves half."""
        dims = self.qk_head_dim + self.v_head_dim
        return float(self.batch_size * self.num_heads * self.seq_len**2 * dims)


@dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """Which attentions are measured."""

    models: Sequence[str]
    heads: tuple[int, int, int] | None
    """Without a model: heads, key-value heads, head dimension."""
    batch_size: int
    seq_lens: Sequence[int]
    dtypes: Sequence[str]


def run(plan: AttentionPlan, options: BenchOptions) -> list[dict[str, Any]]:
    """Measure every backend of every shape.

    Raises:
        BenchmarkError: There is no shape, or a number format is not this device's.
    """
    heads = [(name, _model_heads(load_model(name))) for name in plan.models]
    if plan.heads is not None:
        num_heads, num_kv_heads, dim = plan.heads
        if num_heads % num_kv_heads:
            raise BenchmarkError(
                f"--kv-heads {num_kv_heads}: it does not divide --heads {num_heads}"
            )
        heads.append(("given", (num_heads, num_kv_heads, dim, dim)))
    if not heads:
        raise BenchmarkError("nothing to measure: name a model, or give --heads and --head-dim")
    with bench_session(options) as session:
        refuse_sections(session, "precision")
        peak = cache(partial(measured_peak, session.engine.device))
        cases = []
        for dtype in plan.dtypes:
            check_dtype(dtype, session.engine.device)
            for name, (num_heads, num_kv_heads, qk, v) in heads:
                for seq_len in plan.seq_lens:
                    shape = AttentionShape(
                        batch_size=plan.batch_size, seq_len=seq_len, num_heads=num_heads,
                        num_kv_heads=num_kv_heads, qk_head_dim=qk, v_head_dim=v,
                    )  # fmt: skip
                    key = {"model": name, **asdict(shape), "dtype": dtype,
                           "repeats": options.repeats, "warmup": options.warmup,
                           **session.sections}  # fmt: skip
                    cases.append(Case(key, partial(measure, shape, dtype, session, peak)))
        return session.run("attention", cases)


def _model_heads(model: ModelConfig) -> tuple[int, int, int, int]:
    return model.num_heads, model.kv_heads, model.query_head_dim, model.value_head_dim


def measure(
    shape: AttentionShape,
    dtype: str,
    session: BenchSession,
    peak: Callable[[str], Mapping[str, Any]],
) -> dict[str, Any]:
    """Measure one shape; backends take turns, so that drift is shared."""
    attention, options = MeasuredAttention(shape, dtype, session.engine.device), session.options
    reasons = {name: attention.fault(backend) for name, backend in BACKENDS.items()}
    able = [name for name, reason in reasons.items() if reason is None]
    if not able:
        raise BenchmarkError(
            f"no attention backend runs here ({reasons['math']}): lower --batch or --seq-len"
        )
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in able}
    for number in range(options.warmup + options.repeats):
        for name in able:
            forward_backward_s = attention.forward_backward(BACKENDS[name])
            if number >= options.warmup:
                times[name].append(forward_backward_s)
    measured = peak(dtype)
    rows = [_row(name, times[name], shape, measured) for name in able]
    fastest_s = min(_total_s(row) for row in rows)
    for row in rows:
        row["time_over_fastest"] = _total_s(row) / fastest_s
    missing = [{"backend": name, "reason": reason} for name, reason in reasons.items() if reason]
    return {
        "forward_flops": shape.forward_flops,
        "padded_head_dim": attention.width,
        "backends": rows,
        "not_available": missing,
        "peak": measured,
    }


def _total_s(row: Mapping[str, Any]) -> float:
    return float(row["forward_s"]["median"] + row["backward_s"]["median"])


def _row(
    name: str,
    pairs: Sequence[tuple[float, float]],
    shape: AttentionShape,
    peak: Mapping[str, Any],
) -> dict[str, Any]:
    forward, backward = (median_interval([pair[i] for pair in pairs]) for i in (0, 1))
    flops = shape.forward_flops
    rate = (1 + BACKWARD_FLOPS) * flops / (forward.median + backward.median)
    return {
        "backend": name,
        "forward_s": forward.to_json(),
        "backward_s": backward.to_json(),
        "forward_flops_per_s": flops / forward.median,
        "backward_flops_per_s": BACKWARD_FLOPS * flops / backward.median,
        "share_of_measured_peak": utilization(rate, peak),
    }


def rejection_reason(warned: Sequence[str], error: str) -> str:
    """Return why torch rejects a backend: of its warnings the one that is about this backend."""
    own = [text for text in warned if not re.search("not used because|disabled", text)]
    line = (own or [error])[-1].splitlines()[0].partition(" (Triggered internally")[0]
    return line.partition(". ")[0]


class MeasuredAttention:
    """Random queries, keys and values, as the kernel set `torch` gives them to SDPA."""

    def __init__(self, shape: AttentionShape, dtype: str, device: torch.device) -> None:
        self.shape, self.device = shape, device
        self.width = max(shape.qk_head_dim, shape.v_head_dim)
        """Head dimension of all three: fused kernels need one, so shorter ones are padded."""
        generator = torch.Generator(device).manual_seed(0)
        sizes = {
            "q": (shape.num_heads, shape.qk_head_dim),
            "k": (shape.num_kv_heads, shape.qk_head_dim),
            "v": (shape.num_kv_heads, shape.v_head_dim),
            "grad": (shape.num_heads, shape.v_head_dim),
        }
        tensors = {}
        for name, (heads, dim) in sizes.items():
            size = (shape.batch_size, heads, shape.seq_len, dim)
            x = torch.randn(*size, generator=generator, device=device, dtype=DTYPES[dtype])
            tensors[name] = F.pad(x, (0, self.width - dim))
        self._grad_output = tensors.pop("grad")
        self._inputs = [x.requires_grad_() for x in tensors.values()]

    def fault(self, backend: SDPBackend | None) -> str | None:
        """Run a backend once; returns why it cannot, in one line."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.forward_backward(backend)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                return rejection_reason([str(warning.message) for warning in caught], str(error))
        return None

    def forward_backward(self, backend: SDPBackend | None) -> tuple[float, float]:
        """Return seconds of a forward and of a backward pass, gradients to all three inputs."""
        for x in self._inputs:
            x.grad = None
        with nullcontext() if backend is None else sdpa_kernel(backend):
            synchronize(self.device)
            begin = time.perf_counter()
            output = self._attend(*self._inputs)
            synchronize(self.device)
            middle = time.perf_counter()
            torch.autograd.backward(output, self._grad_output)
            synchronize(self.device)
        return middle - begin, time.perf_counter() - middle

    def _attend(self, q_bnsd: Tensor, k_bgsd: Tensor, v_bgsd: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            q_bnsd,
            k_bgsd,
            v_bgsd,
            is_causal=True,
            scale=self.shape.qk_head_dim**-0.5,
            enable_gqa=self.shape.num_heads != self.shape.num_kv_heads,
        )
