"""What a search chooses beside sizes: recomputation, dispatcher and overlap."""

from typing import Any

from parallel.layout.layout import Layout
from parallel.layout.model_shape import ModelShape
from parallel.planner.search.candidates import Candidate

Choice = dict[str, Any]
"""Fields of `Layout`."""


def recomputations(shape: ModelShape) -> list[Choice]:
    """Return ways to recompute, from none to all."""
    sparse = any(shape.sparse_layers)
    light = ["layernorm", *(["moe_act"] if sparse else []), *_latent(shape)]
    heavy = [*light, "moe" if sparse else "mlp"]
    # The whole network holds its activation.
    heavy = [name for name in heavy if name != "moe_act"]
    return [
        {"recompute": "none"},
        {"recompute": "selective", "recompute_modules": light},
        {"recompute": "selective", "recompute_modules": heavy},
        {"recompute": "full"},
    ]


def exchanges(
    shape: ModelShape, base: Layout, candidate: Candidate, recomputation: Choice
) -> list[Choice]:
    """Return ways to exchange tokens: the experiment's dispatcher, with and without overlap.

    Overlap needs the interleaved schedule or no pipeline at all, experts that are not recomputed as
    a whole, and no multi-token prediction (`layout_faults`, `moe/config/kernels.py`).
    """
    if candidate.ep * candidate.etp == 1:
        return [{"dispatcher": "alltoall", "overlap_experts": False}]
    dispatchers: list[Choice] = [{"dispatcher": base.dispatcher, "flex_backend": base.flex_backend}]
    can_overlap = (
        candidate.ep > 1
        and (candidate.pp == 1 or candidate.vpp > 1)
        and recomputation["recompute"] != "full"
        and "moe" not in recomputation.get("recompute_modules", ())
        and not shape.mtp_layers
        and base.dispatcher != "allgather"
    )
    overlaps = [False, True] if can_overlap else [False]
    return [choice | {"overlap_experts": overlap} for choice in dispatchers for overlap in overlaps]


def _latent(shape: ModelShape) -> list[str]:
    return ["mla_up_proj"] if shape.kv_lora_rank else []
