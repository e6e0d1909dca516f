"""What a search chooses beside sizes: recomputation, dispatcher and overlap."""

from collections.abc import Sequence
from typing import Any

from parallel.layout.layout import TE_RECOMPUTE_MODULES
from parallel.layout.model_shape import ModelShape
from parallel.planner.search.candidates import Sizes

Choice = dict[str, Any]
"""Fields of `Layout`."""
DISPATCHERS: dict[str, Choice] = {
    "allgather": {"dispatcher": "allgather"},
    "alltoall": {"dispatcher": "alltoall"},
    "deepep": {"dispatcher": "flex", "flex_backend": "deepep"},
    "hybridep": {"dispatcher": "flex", "flex_backend": "hybridep"},
}
"""By what exchanges tokens (`Layout.exchange_library`)."""


def recomputations(shape: ModelShape, *, has_te: bool) -> list[Choice]:
    """Return ways to recompute, from none to all; `has_te` of the kernel set."""
    sparse = any(shape.sparse_layers)
    latent = ["mla_up_proj"] if shape.kv_lora_rank else []
    light = ("layernorm", *(TE_RECOMPUTE_MODULES if sparse and has_te else ()), *latent)
    # The whole network holds its activation.
    heavy = ("layernorm", *latent, "moe" if sparse else "mlp")
    return [
        {"recompute": "none"},
        {"recompute": "selective", "recompute_modules": light},
        {"recompute": "selective", "recompute_modules": heavy},
        {"recompute": "full"},
    ]


def exchanges(
    shape: ModelShape,
    libraries: Sequence[str],
    sizes: Sizes,
    recomputation: Choice,
    *,
    can_pair: bool,
) -> list[Choice]:
    """Return ways to exchange tokens: each library, with and without overlap.

    Overlap needs stages that can pair a forward with a backward pass, experts that are not
    recomputed as a whole, and no multi-token prediction (`layout_faults`, `moe/config/kernels.py`).
    """
    if sizes.ep * sizes.etp == 1:
        return [{"dispatcher": "alltoall", "overlap_experts": False}]
    can_overlap = (
        can_pair
        and sizes.ep > 1
        and recomputation["recompute"] != "full"
        and "moe" not in recomputation.get("recompute_modules", ())
        and not shape.mtp_layers
    )
    return [
        DISPATCHERS[library] | {"overlap_experts": overlap}
        for library in libraries
        for overlap in ([False, True] if can_overlap and library != "allgather" else [False])
    ]
