"""The dials of a ladder: what a user chooses of a model; everything else follows."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data.frozen_model import FrozenModel
from moe.config.model import Count, Size

WIDTH_MULTIPLE = 16
"""Widths are multiples of this: FP8 products need it, BF16 ones on rows of 16 bytes half."""

Parameters = Annotated[float, Field(ge=1, le=1e15)]
SIZE_DIALS = ("active_parameters", "parameters", "hidden_size")


class Dials(FrozenModel):
    """Sizes of one model of the ladder; exactly one of the three sizes is given.

    Defaults are the proportions of Ludziejewski et al. 2025 (arXiv:2502.05172): one layer and one
    head for each 64 of width, a feed-forward network 3 times as wide as the model (SwiGLU), so
    that a layer has 13 d^2 active parameters.
    """

    active_parameters: Parameters | None = None
    """Parameters that one token meets, as the cost ledger counts them."""
    parameters: Parameters | None = None
    """Total parameters."""
    hidden_size: Size | None = None
    """Width of the residual stream; its size then follows."""
    embeddings: Literal["in", "out"] = "in"
    """Whether `active_parameters` or `parameters` count embedding and LM head."""
    experts: int = Field(default=1, ge=1, le=100_000)
    """Routed experts a layer; 1: a dense model, which the next three dials do not change."""
    top_k: Size | None = None
    """Routed experts that a token meets. Default: as many as, with the shared ones, are as wide
    together as the dense network (Krajewski et al. 2024, arXiv:2402.07871: granularity many)."""
    granularity: float = Field(default=1.0, ge=0.01, le=10_000)
    """Width of the dense feed-forward network over that of one expert."""
    shared_experts: float = Field(default=0, ge=0, le=1_000)
    """Experts that every token meets, of the same width; one that is half as wide is 0.5."""
    first_dense_layers: int = Field(default=0, ge=0, le=1_000)
    """Leading layers of a sparse model that stay dense."""
    aspect_ratio: float = Field(default=64.0, ge=1, le=10_000)
    """Width over depth; the loss depends on it weakly (Kaplan et al. 2020, arXiv:2001.08361)."""
    num_layers: Count | None = None
    """Depth, whatever the width. Default: by `aspect_ratio`."""
    head_dim: int = Field(default=64, ge=2, le=4096)
    """Dimension of a head."""
    heads_per_kv_head: int = Field(default=1, ge=1, le=1024)
    """Query heads that share a key-value head; 1: multi-head attention."""
    attention_ratio: float = Field(default=1.0, ge=0.01, le=100)
    """Width of attention (query heads x `head_dim`) over that of the model."""
    ffn_ratio: float = Field(default=3.0, ge=0.1, le=100)
    """Width of the dense feed-forward network over that of the model."""
    vocab_size: Size = 50_304
    """Rows of the embedding: GPT-2's 50,257, up to a multiple of 128."""
    max_seq_len: Size = 4096
    """Longest sequence."""
    tie_embeddings: bool = False
    """Use the input embedding as LM head."""
    qk_norm: Literal["none", "head", "full"] = "head"
    """RMSNorm on queries and keys (Qwen3: per head)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in SIZE_DIALS if getattr(self, name) is not None]
        if len(given) != 1:
            names = " and ".join(given) or "none"
            raise ValueError(f"a size is one of {', '.join(SIZE_DIALS)}; given: {names}")
        if self.experts > 1 and self.top_k is not None and self.top_k > self.experts:
            raise ValueError(f"top_k={self.top_k} exceeds experts={self.experts}: lower top_k")
        if self.experts > 1 and self.num_layers and self.first_dense_layers >= self.num_layers:
            raise ValueError(
                f"first_dense_layers={self.first_dense_layers} leaves none of num_layers="
                f"{self.num_layers} sparse: lower it"
            )
        return self

    @property
    def width_step(self) -> int:
        """Widths are multiples of this: each holds one more group of heads on a key-value head."""
        group = self.head_dim * self.heads_per_kv_head
        if self.attention_ratio == 1:
            return group
        return WIDTH_MULTIPLE * max(1, round(group / self.attention_ratio / WIDTH_MULTIPLE))

    @property
    def experts_per_token(self) -> int:
        """`top_k`, resolved; 1 for a dense model."""
        if self.experts == 1:
            return 1
        by_width = max(1, round(round(self.granularity) - self.shared_experts))
        return self.top_k or min(by_width, self.experts)

    def heads(self, width: int) -> int:
        """Return the query heads of a width: whole groups, as near to `attention_ratio` as can be.

        Widths that are no multiple of `width_step` have them too: those of a base may be any.
        """
        groups = self.attention_ratio * width / (self.head_dim * self.heads_per_kv_head)
        return self.heads_per_kv_head * max(1, round(groups))
