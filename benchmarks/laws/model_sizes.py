"""The quantities that a model determines, in the cost ledger's conventions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.laws.quantities import RULES, derived
from moe.config.model import ModelConfig
from moe.cost.ledger import ledger


def sizes_of(model: ModelConfig) -> dict[str, float]:
    """Return a model's quantities (`quantities.py`); sizes count embeddings unless named otherwise.

    Those that it does not have are left out: a sparse model without `ffn_hidden_size` has no
    granularity.
    """
    sizes = counted_sizes(ledger(model, 1).as_json(), model.model_dump(exclude_none=True))
    columns = {name: np.array([value]) for name, value in sizes.items()}
    found = {name: derived(name, columns) for name in RULES}
    return sizes | {name: float(column[0]) for name, column in found.items() if column is not None}


def counted_sizes(costs: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, float]:
    """Return the quantities from which others follow.

    Args:
        costs: A ledger as JSON, as run directories keep it.
        model: The `[model]` table; empty if it is not known.
    """
    total, active = costs["total_parameters"], costs["active_parameters"]
    known = {"parameters": total, "active_parameters": active}
    embedding = costs.get("embedding_parameters")
    if embedding is not None:
        known |= {
            "embedding_parameters": embedding,
            "non_embedding_parameters": total - embedding,
            "active_non_embedding_parameters": active - embedding,
        }
    if model:
        known |= _shape(model)
    return {name: float(value) for name, value in known.items() if value is not None}


def _shape(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return widths and experts; a dense layer is one expert that all tokens meet."""
    moe, ffn = model.get("moe") or {}, model.get("ffn_hidden_size")
    expert = moe.get("expert_ffn_hidden_size") if moe else ffn
    shared = moe.get("shared_expert_ffn_hidden_size", 0)
    return {
        "hidden_size": model.get("hidden_size"),
        "ffn_hidden_size": ffn,
        "expert_ffn_hidden_size": expert,
        "experts": moe.get("num_experts", 1),
        "top_k": moe.get("top_k", 1),
        "shared_experts": shared / expert if shared and expert else None if shared else 0,
    }
