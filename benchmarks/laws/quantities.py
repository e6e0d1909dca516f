"""The quantities that columns of points may hold, and how one follows from others."""

from collections.abc import Callable, Mapping

from benchmarks.laws.law import Columns, FloatArray

QUANTITIES: Mapping[str, str] = {
    "loss": "validation loss, nats per token",
    "leverage": "FLOPs of a dense model over those of a sparse one of equal loss",
    "tokens": "training tokens",
    "parameters": "total parameters",
    "active_parameters": "parameters that one token meets",
    "embedding_parameters": "parameters of embedding and LM head",
    "non_embedding_parameters": "total parameters without embedding and LM head",
    "active_non_embedding_parameters": "active parameters without embedding and LM head",
    "experts": "routed experts a layer, 1 for a dense model",
    "top_k": "routed experts that a token meets",
    "shared_experts": "experts that every token meets",
    "granularity": "d_ff / d_expert",
    "hidden_granularity": "2 d_model / d_expert",
    "hidden_size": "d_model",
    "ffn_hidden_size": "inner size d_ff of the dense feed-forward layer that is cut into experts",
    "expert_ffn_hidden_size": "inner size d_expert of an expert",
    "sparsity": "(E - K) / E",
    "activation_ratio": "(K + shared) / (E + shared)",
    "active_experts": "K + shared experts",
    "shared_ratio": "shared / (K + shared)",
    "flops": "training FLOPs",
    "bits": "bits of the number format of training",
}
"""What each means. Sizes count embeddings unless a column `embeddings` says `out`."""

NON_NEGATIVE = {"sparsity", "shared_experts", "shared_ratio"}
"""Quantities that may be 0; all others are greater."""

UPPER_BOUNDS = {"sparsity": 1.0, "shared_ratio": 1.0, "activation_ratio": 1.0}
"""A sparsity is below its bound; a ratio may reach it."""

Rule = tuple[tuple[str, ...], Callable[..., FloatArray]]

RULES: Mapping[str, tuple[Rule, ...]] = {
    "sparsity": ((("experts", "top_k"), lambda experts, k: (experts - k) / experts),),
    "activation_ratio": (
        (
            ("experts", "top_k", "shared_experts"),
            lambda experts, k, shared: (k + shared) / (experts + shared),
        ),
        (("experts", "top_k"), lambda experts, k: k / experts),
    ),
    "active_experts": (
        (("top_k", "shared_experts"), lambda k, shared: k + shared),
        (("top_k",), lambda k: k),
    ),
    "shared_ratio": ((("top_k", "shared_experts"), lambda k, shared: shared / (k + shared)),),
    "granularity": (
        (("ffn_hidden_size", "expert_ffn_hidden_size"), lambda ffn, expert: ffn / expert),
    ),
    "hidden_granularity": (
        (("hidden_size", "expert_ffn_hidden_size"), lambda hidden, expert: 2 * hidden / expert),
        (
            ("granularity", "hidden_size", "ffn_hidden_size"),
            lambda cut, hidden, ffn: cut * 2 * hidden / ffn,
        ),
    ),
    "flops": ((("active_parameters", "tokens"), lambda active, tokens: 6 * active * tokens),),
}
"""How a quantity follows from others, the first possible rule first."""


def derived(name: str, columns: Columns) -> FloatArray | None:
    """Return a quantity's column, computed if it is not there; `None` if it does not follow."""
    if name in columns:
        return columns[name]
    for needs, rule in RULES.get(name, ()):
        if all(need in columns for need in needs):
            return rule(*(columns[need] for need in needs))
    return None


def ways(name: str) -> str:
    """Return the columns that give a quantity, in words."""
    others = [" and ".join(needs) for needs, _ in RULES.get(name, ())]
    return " or ".join([f"column {name!r}", *others])
