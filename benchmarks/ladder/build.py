"""From dials, a width and a depth to a model: the proportions of the ladder."""

from typing import Any

from benchmarks.errors import BenchmarkError
from benchmarks.ladder.dials import Dials
from moe.config.experiment import validated
from moe.config.model import LARGEST_SIZE, ModelConfig

DIAL_KEYS = (
    "num_layers", "hidden_size", "num_heads", "num_kv_heads", "head_dim", "ffn_hidden_size",
    "vocab_size", "max_seq_len", "tie_embeddings", "qk_norm", "moe.num_experts", "moe.top_k",
    "moe.expert_ffn_hidden_size", "moe.shared_expert_ffn_hidden_size", "moe.first_dense_layers",
)  # fmt: skip
"""Keys of `[model]` that dials decide."""
FFN_MULTIPLE = 16
"""Inner sizes are multiples of this: FP8 products need it, BF16 ones on rows of 16 bytes half."""
TOP_1 = {"normalize_top_k": False}
"""One expert's normalized weight is always 1: its router would learn nothing."""


def build_model(
    dials: Dials, hidden_size: int, num_layers: int, base: ModelConfig | None = None
) -> ModelConfig:
    """Return the model of a width and a depth.

    Args:
        dials: Its proportions.
        hidden_size: A multiple of `dials.width_step`.
        num_layers: Depth.
        base: What the dials leave open (positions, load balancing, ...) is as in this model.

    Raises:
        ConfigError: There can be no such model; names key and rule.
        BenchmarkError: The layers of `base` are not of the kind that a ladder has.
    """
    values: dict[str, Any] = {} if base is None else _open_values(base)
    moe = values.pop("moe", {})
    heads = hidden_size // dials.head_dim
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
        values["moe"] = moe | {
            "num_experts": dials.experts,
            "top_k": dials.experts_per_token,
            "expert_ffn_hidden_size": expert,
            "shared_expert_ffn_hidden_size": dials.shared_experts * expert,
            "first_dense_layers": dials.first_dense_layers,
            **(TOP_1 if dials.experts_per_token == 1 else {}),
        }
    return validated(ModelConfig, values, "ladder", ("model",))


def dials_of(model: ModelConfig) -> dict[str, Any]:
    """Return the dials that a model has, without its size and depth."""
    ffn, moe = model.ffn_hidden_size, model.moe
    dials: dict[str, Any] = {
        "head_dim": model.query_head_dim,
        "heads_per_kv_head": model.num_heads // model.kv_heads,
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
            "shared_experts": round(moe.shared_expert_ffn_hidden_size / moe.expert_ffn_hidden_size),
            "first_dense_layers": moe.first_dense_layers,
        }
    return dials


def ffn_size(asked: float) -> int:
    """Return the inner size nearest to the one asked for."""
    return min(LARGEST_SIZE, max(FFN_MULTIPLE, FFN_MULTIPLE * round(asked / FFN_MULTIPLE)))


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
