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
    """Rows of all groups together."""
    n: int
    k: int
    groups: int = 1
    """Weights, one for each group of rows: experts."""
    group_rows: tuple[int, ...] | None = None
    """Rows of each group; None: spread as evenly as whole numbers allow."""
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
        if self.group_rows is not None:
            return list(self.group_rows)
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
    return [
        *attention_gemms(model, tokens),
        *dense_gemms(model, tokens),
        *router_gemms(model, tokens),
        *expert_gemms(model, tokens),
        *shared_expert_gemms(model, tokens),
        head_gemm(model, tokens),
    ]


def attention_gemms(model: ModelConfig, tokens: int) -> Iterator[Gemm]:
    """Yield the projections of one attention."""
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


def dense_gemms(model: ModelConfig, tokens: int) -> Iterator[Gemm]:
    """Yield the products of one dense feed-forward network, if the model has any."""
    if not all(model.sparse_layers) and model.ffn_hidden_size is not None:
        yield from _gated("dense", tokens, model.hidden_size, model.ffn_hidden_size)


def router_gemms(model: ModelConfig, tokens: int) -> Iterator[Gemm]:
    """Yield the product of one router, in the number format of `moe.router_dtype`."""
    if (moe := model.moe) is not None:
        own = None if moe.router_dtype == "model" else moe.router_dtype
        yield Gemm(
            role="router", m=tokens, n=moe.num_experts, k=model.hidden_size, dtype=own,
            runs_in_fp8=False,
        )  # fmt: skip


def expert_gemms(
    model: ModelConfig, tokens: int, rows: tuple[int, ...] | None = None
) -> Iterator[Gemm]:
    """Yield the products of one layer's routed experts; `rows` of each, None: even routing."""
    if (moe := model.moe) is not None:
        total = tokens * moe.top_k if rows is None else sum(rows)
        yield from _gated(
            "experts", total, model.hidden_size, moe.expert_ffn_hidden_size, moe.num_experts, rows
        )


def shared_expert_gemms(model: ModelConfig, tokens: int) -> Iterator[Gemm]:
    """Yield the products of one layer's shared experts."""
    if (moe := model.moe) is not None and moe.shared_expert_ffn_hidden_size:
        inner = moe.shared_expert_ffn_hidden_size
        yield from _gated("shared experts", tokens, model.hidden_size, inner)


def head_gemm(model: ModelConfig, tokens: int) -> Gemm:
    """Return the LM head's product."""
    return Gemm(role="head", m=tokens, n=model.vocab_size, k=model.hidden_size, runs_in_fp8=False)


def mtp_gemm(model: ModelConfig, tokens: int) -> Gemm:
    """Return the projection of a multi-token-prediction layer (arXiv:2412.19437, section 2.2)."""
    return Gemm(role="MTP projection", m=tokens, n=model.hidden_size, k=2 * model.hidden_size)


def _gated(
    name: str,
    rows: int,
    hidden: int,
    inner: int,
    groups: int = 1,
    group_rows: tuple[int, ...] | None = None,
) -> Iterator[Gemm]:
    """Yield the two products of a gated network (arXiv:2002.05202): gate and up at once, down."""
    for role, n, k in (("up", 2 * inner, hidden), ("down", hidden, inner)):
        yield Gemm(role=f"{name} {role}", m=rows, n=n, k=k, groups=groups, group_rows=group_rows)
