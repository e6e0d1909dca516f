"""Which matrix products are measured: given ones, and those of one layer of a model.

y[m, n] = x[m, k] w[n, k]^T, 2 m n k FLOPs. Products of the backward pass are the same with other
sizes: (m, k, n) for the input's gradient and (n, k, m) for the weight's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.errors import BenchmarkError
from moe.config.model import ModelConfig

GemmDtype = Literal["fp32", "bf16", "fp8"]


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """One matrix product, or one for each of several groups of rows."""

    role: str
    m: int
    """Rows of all groups together; they are spread as evenly as whole numbers allow."""
    n: int
    k: int
    groups: int = 1
    """Weights, one for each group of rows: experts."""
    dtype: Literal["fp32", "fp64"] | None = None
    """The model's own choice for this product; None: whichever is measured."""
    runs_in_fp8: bool = True
    """Whether FP8 recipes cover this product (routers and heads stay in higher precision)."""

    @property
    def flops(self) -> int:
        """FLOPs of all groups."""
        return 2 * self.m * self.n * self.k

    @property
    def rows(self) -> list[int]:
        """Rows of each group."""
        share, rest = divmod(self.m, self.groups)
        return [share + (group < rest) for group in range(self.groups)]


def parse_gemm(text: str) -> Gemm:
    """Read `MxNxK`, or `GxMxNxK`: G groups that have M rows each.

    Raises:
        BenchmarkError: It is something else.
    """
    words = text.lower().split("x")
    sizes = [int(word) for word in words if word.isascii() and word.isdigit()]
    if len(sizes) != len(words) or len(sizes) not in (3, 4) or not all(sizes):
        raise BenchmarkError(
            f"--shape {text!r}: write the three sizes of y[m, n] = x[m, k] w[n, k]^T, as in"
            " 8192x4096x2048, or four: groups, and the rows of each, first"
        )
    groups = sizes[0] if len(sizes) == 4 else 1
    m, n, k = sizes[-3:]
    return Gemm(role="given", m=groups * m, n=n, k=k, groups=groups)


def model_gemms(model: ModelConfig, tokens: int) -> list[Gemm]:
    """Return the forward products of one layer of each kind, and of the LM head.

    Args:
        model: Its weights are complete: no parallel layout divides them.
        tokens: Of one pass; routing is even.
    """
    gemms = [*_attention(model, tokens), *_feed_forward(model, tokens)]
    head = Gemm(role="head", m=tokens, n=model.vocab_size, k=model.hidden_size, runs_in_fp8=False)
    return [*gemms, head]


def _attention(model: ModelConfig, tokens: int) -> Iterator[Gemm]:
    hidden, heads, mla = model.hidden_size, model.num_heads, model.mla
    queries = heads * model.query_head_dim
    if mla is None:
        projected = queries + 2 * model.kv_heads * model.query_head_dim
        yield Gemm(role="qkv", m=tokens, n=projected, k=hidden)
    else:
        if mla.q_lora_rank is not None:
            yield Gemm(role="query down", m=tokens, n=mla.q_lora_rank, k=hidden)
        yield Gemm(role="query up", m=tokens, n=queries, k=mla.q_lora_rank or hidden)
        latent = mla.kv_lora_rank + mla.qk_rope_head_dim
        yield Gemm(role="key-value down", m=tokens, n=latent, k=hidden)
        up = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        yield Gemm(role="key-value up", m=tokens, n=up, k=mla.kv_lora_rank)
    yield Gemm(role="proj", m=tokens, n=hidden, k=heads * model.value_head_dim)


def _feed_forward(model: ModelConfig, tokens: int) -> Iterator[Gemm]:
    moe, hidden = model.moe, model.hidden_size
    if not all(model.sparse_layers) and model.ffn_hidden_size is not None:
        yield from _gated("dense", tokens, hidden, model.ffn_hidden_size)
    if moe is None:
        return
    own = None if moe.router_dtype == "model" else moe.router_dtype
    yield Gemm(role="router", m=tokens, n=moe.num_experts, k=hidden, dtype=own, runs_in_fp8=False)
    rows = tokens * moe.top_k
    yield from _gated("experts", rows, hidden, moe.expert_ffn_hidden_size, moe.num_experts)
    if moe.shared_expert_ffn_hidden_size:
        yield from _gated("shared experts", tokens, hidden, moe.shared_expert_ffn_hidden_size)


def _gated(name: str, rows: int, hidden: int, inner: int, groups: int = 1) -> Iterator[Gemm]:
    """Yield the two products of a gated network (arXiv:2002.05202): gate and up at once, down."""
    yield Gemm(role=f"{name} up", m=rows, n=2 * inner, k=hidden, groups=groups)
    yield Gemm(role=f"{name} down", m=rows, n=hidden, k=inner, groups=groups)
