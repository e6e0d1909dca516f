"""Shapes of one MoE layer: grids of them, and those with published speeds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

from benchmarks.errors import BenchmarkError
from benchmarks.published.rows import published_rows
from moe.config.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One MoE layer and the tokens of one rank."""

    hidden_size: int
    expert_ffn_hidden_size: int
    num_experts: int
    top_k: int
    tokens: int
    shared_expert_ffn_hidden_size: int = 0

    def model(self) -> ModelConfig:
        """Return a one-layer model that has this layer."""
        return ModelConfig.model_validate(
            {
                "num_layers": 1,
                "hidden_size": self.hidden_size,
                "num_heads": 1,
                "vocab_size": 256,
                "max_seq_len": self.tokens,
                "moe": {
                    "num_experts": self.num_experts,
                    "top_k": self.top_k,
                    "expert_ffn_hidden_size": self.expert_ffn_hidden_size,
                    "shared_expert_ffn_hidden_size": self.shared_expert_ffn_hidden_size,
                    "normalize_top_k": self.top_k > 1,
                },
            }
        )

    @property
    def forward_flops(self) -> float:
        """FLOPs of the experts in one forward pass: three matmuls, 2 FLOPs a weight and token."""
        width = self.top_k * self.expert_ffn_hidden_size + self.shared_expert_ffn_hidden_size
        return 6.0 * self.tokens * self.hidden_size * width


def layer_shapes(
    base: LayerShape,
    tokens: Sequence[int] = (),
    experts: Sequence[int] = (),
    top_k: Sequence[int] = (),
    granularity: Sequence[int] = (),
) -> list[LayerShape]:
    """Return the grid around `base`; empty lists keep its value.

    Granularity G splits each expert into G, each 1/G as wide, and routes to G times as many
    (arXiv:2402.07871): FLOPs and parameters stay the same.

    Raises:
        BenchmarkError: An expert's width is not divisible by a granularity, or top-k is too large.
    """
    shapes = []
    for t, e, k, g in product(
        tokens or [base.tokens], experts or [base.num_experts], top_k or [base.top_k],
        granularity or [1],
    ):  # fmt: skip
        if base.expert_ffn_hidden_size % g:
            raise BenchmarkError(
                f"--granularity {g}: it does not divide the experts' width"
                f" {base.expert_ffn_hidden_size}"
            )
        if k > e:
            raise BenchmarkError(f"--top-k {k} exceeds --experts {e}")
        width = base.expert_ffn_hidden_size // g
        changes = {"tokens": t, "num_experts": e * g, "top_k": k * g}
        shapes.append(LayerShape(**{**asdict(base), **changes, "expert_ffn_hidden_size": width}))
    return shapes


def published_shape(name: str, shrink: int) -> LayerShape:
    """Return a shape of the published MoE-layer table, its widths divided by `shrink`.

    Raises:
        BenchmarkError: No such shape.
    """
    rows = {row["proxy"]: row for row in published_rows("moe_layer_h100")}
    if name not in rows:
        raise BenchmarkError(f"--shape {name!r}: there is {', '.join(rows)}")
    row = rows[name]
    return LayerShape(
        hidden_size=int(row["hidden_size"]) // shrink,
        expert_ffn_hidden_size=int(row["expert_ffn_hidden_size"]) // shrink,
        shared_expert_ffn_hidden_size=int(row["shared_expert_ffn_hidden_size"]) // shrink,
        num_experts=int(row["num_experts"]),
        top_k=int(row["top_k"]),
        tokens=int(row["seq_len"]) * int(row["micro_batch_size"]),
    )


def published_layers(shape: LayerShape) -> list[dict[str, str]]:
    """Return published measurements of exactly this layer, on eight H100, each with its source."""
    sizes = asdict(shape)
    return [
        row
        for row in published_rows("moe_layer_h100")
        if int(row["seq_len"]) * int(row["micro_batch_size"]) == shape.tokens
        and all(int(row[name]) == sizes[name] for name in sizes.keys() & row.keys())
    ]
