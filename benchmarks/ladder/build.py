"""From dials, a width and a depth to a model: the proportions of the ladder."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.dials import SIZE_DIALS, WIDTH_MULTIPLE, Dials
from moe.config.experiment import validated
from moe.config.model import LARGEST_SIZE, ModelConfig

_ATTENTION = ("head_dim", "heads_per_kv_head", "attention_ratio")
_EXPERT = ("granularity", "ffn_ratio")
DIAL_KEYS: Mapping[str, tuple[str, ...]] = {
    "num_layers": ("num_layers", "aspect_ratio", *SIZE_DIALS),
    "hidden_size": SIZE_DIALS,
    "num_heads": (*_ATTENTION, *SIZE_DIALS),
    "num_kv_heads": (*_ATTENTION, *SIZE_DIALS),
    "head_dim": ("head_dim",),
    "ffn_hidden_size": ("ffn_ratio", *SIZE_DIALS),
    "vocab_size": ("vocab_size",),
    "max_seq_len": ("max_seq_len",),
    "tie_embeddings": ("tie_embeddings",),
    "qk_norm": ("qk_norm",),
    "moe.num_experts": ("experts",),
    "moe.top_k": ("top_k",),
    "moe.expert_ffn_hidden_size": (*_EXPERT, *SIZE_DIALS),
    "moe.shared_expert_ffn_hidden_size": ("shared_experts", *_EXPERT, *SIZE_DIALS),
    "moe.first_dense_layers": ("first_dense_layers",),
}
"""Keys of `[model]` that dials decide, and which."""
TOP_1 = {"normalize_top_k": False}
"""One expert's normalized weight is always 1: its router would learn nothing."""


def build_model(
    dials: Dials, hidden_size: int, num_layers: int, base: ModelConfig | None = None
) -> ModelConfig:
    """Return the model of a width and a depth.

    Args:
        dials: Its proportions.
        hidden_size: Width.
        num_layers: Depth.
        base: What the dials leave open (positions, load balancing, ...) is as in this model.

    Raises:
        ConfigError: There can be no such model; names key and rule.
        BenchmarkError: The layers of `base` are not of the kind that a ladder has.
    """
    values: dict[str, Any] = {} if base is None else _open_values(base)
    moe = values.pop("moe", {})
    heads = dials.heads(hidden_size)
    ffn = ffn_size(dials.ffn_ratio * hidden_size)
    values |= {
        "num_layers": num_layers,
        "hidden_size": hidden_size,
        "num_heads": heads,
        "num_kv_heads": heads // dials.heads_per_kv_head,
        "head_dim": dials.head_dim,
        "ffn_hidden_size": ffn,
        "vocab_size": dials.vocab_size,
        "max_seq_len": dials.max_seq_len,
        "tie_embeddings": dials.tie_embeddings,
        "qk_norm": dials.qk_norm,
    }
    if dials.experts > 1:
        expert = ffn_size(ffn / dials.granularity)
        shared = ffn_size(dials.shared_experts * expert) if dials.shared_experts else 0
        was_top_1 = moe.get("top_k") == 1
        values["moe"] = moe | {
            "num_experts": dials.experts,
            "top_k": dials.experts_per_token,
            "expert_ffn_hidden_size": expert,
            "shared_expert_ffn_hidden_size": shared,
            "first_dense_layers": dials.first_dense_layers,
            **(TOP_1 if dials.experts_per_token == 1 and not was_top_1 else {}),
        }
    return validated(ModelConfig, values, "ladder", ("model",))


def dials_of(model: ModelConfig) -> dict[str, Any]:
    """Return the dials that a model has, without its size and depth."""
    ffn, moe = model.ffn_hidden_size, model.moe
    dials: dict[str, Any] = {
        "head_dim": model.query_head_dim,
        "heads_per_kv_head": model.num_heads // model.kv_heads,
        "attention_ratio": model.num_heads * model.query_head_dim / model.hidden_size,
        "vocab_size": model.vocab_size,
        "max_seq_len": model.max_seq_len,
        "tie_embeddings": model.tie_embeddings,
        "qk_norm": model.qk_norm,
    }
    if ffn is not None:
        dials["ffn_ratio"] = ffn / model.hidden_size
    if moe is not None:
        width = ffn or Dials.model_fields["ffn_ratio"].default * model.hidden_size
        dials |= {
            "experts": moe.num_experts,
            "top_k": moe.top_k,
            "granularity": width / moe.expert_ffn_hidden_size,
            "shared_experts": moe.shared_expert_ffn_hidden_size / moe.expert_ffn_hidden_size,
            "first_dense_layers": moe.first_dense_layers,
        }
    return dials


def ffn_size(asked: float) -> int:
    """Return the inner size nearest to the one asked for."""
    return min(LARGEST_SIZE, WIDTH_MULTIPLE * max(1, round(asked / WIDTH_MULTIPLE)))


def check_unturned(base: ModelConfig, model: ModelConfig, turned: Iterable[str]) -> None:
    """Check that a model differs from its base in nothing that no dial was turned for.

    Raises:
        BenchmarkError: It does; names the key and both values.
    """
    before, after = (_flat(one) for one in (base, model))
    for key, dials in DIAL_KEYS.items():
        old, new = before.get(key), after.get(key)
        # A key that only one has: the base leaves it open, or one is dense.
        if None in (old, new) or old == new or set(dials) & set(turned):
            continue
        raise BenchmarkError(
            f"model.{key}: {old} in the base, {new} on the ladder, and the design does not turn"
            f" {' or '.join(dials)}: give the base {new}, or turn one of them"
        )


def _flat(model: ModelConfig) -> dict[str, Any]:
    """Return a model's values by dotted key, key-value heads resolved."""
    values = model.model_dump()
    moe = values.pop("moe") or {}
    resolved = {"num_kv_heads": model.kv_heads, "head_dim": model.query_head_dim}
    return values | resolved | {f"moe.{key}": value for key, value in moe.items()}


def _open_values(base: ModelConfig) -> dict[str, Any]:
    """Return a model's plain values.

    Raises:
        BenchmarkError: Its layers are not of the kind that a ladder has.
    """
    if base.mla is not None:
        raise BenchmarkError("model.mla: a ladder has no latent attention: remove it or the dials")
    if base.moe is not None and base.moe.layer_interval != 1:
        raise BenchmarkError(
            f"model.moe.layer_interval={base.moe.layer_interval}: all layers of a ladder after the"
            " first dense ones are sparse: set 1 or remove the dials"
        )
    return base.model_dump(exclude={"preset"}, exclude_none=True)
