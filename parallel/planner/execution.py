"""What decides a step's speed beside model, layout and precision: how the layout is run."""

from dataclasses import dataclass
from typing import Literal

GraphPart = Literal["attn", "mlp", "moe_router", "moe_preprocess"]
ALL_PARTS: tuple[GraphPart, ...] = ("attn", "mlp", "moe_router", "moe_preprocess")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a layout is run. The defaults are those of `moe train`."""

    overlap_tp: bool = False
    """Tensor-parallel collectives in chunks beside their matrix products (Transformer Engine's
    user buffers)."""
    cuda_graphs: tuple[GraphPart, ...] = ()
    """Parts of each layer whose launches are replayed from a CUDA graph, by megatron-core's
    names."""
    routing: Literal["forced", "natural", "capacity"] = "forced"
    """How evenly tokens reach experts: evenly by force, as routers choose, or with a capacity."""
