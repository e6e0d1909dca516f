"""What kind of value a key of `config.json` has, and where its class in transformers takes a null.

Read from the annotated fields of `configuration_*.py` of transformers 5.24, which refuse any other
kind; 4.57 checks nothing, and computes with what it finds. A whole number may stand where a number
is wanted, as it may in JSON: 5.24 refuses 1 for 1.0. Tests compare the tables with the installed
classes, key by key.
"""

from collections.abc import Callable

from moe.config.model import LARGEST_SIZE
from moe.convert.class_defaults import CLASS_DEFAULTS
from moe.convert.hub_config import HubConfig
from moe.errors import ConfigError

_WHOLE = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
    "max_position_embeddings", "intermediate_size", "head_dim", "moe_intermediate_size",
    "shared_expert_intermediate_size", "num_experts", "num_local_experts", "n_routed_experts",
    "n_shared_experts", "num_experts_per_tok", "n_group", "topk_group", "first_k_dense_replace",
    "decoder_sparse_step", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
    "v_head_dim", "sliding_window", "max_window_layers", "rotary_dim", "num_nextn_predict_layers",
    "num_mtp_layers", "bos_token_id", "pad_token_id", "pretraining_tp",
)  # fmt: skip
_NUMBERS = (
    "rms_norm_eps", "initializer_range", "rope_theta", "partial_rotary_factor", "clip_qkv",
    "routed_scaling_factor", "router_aux_loss_coef", "router_jitter_noise", "attention_dropout",
    "swiglu_alpha", "swiglu_limit",
)  # fmt: skip
_FLAGS = (
    "tie_word_embeddings", "attention_bias", "mlp_bias", "qkv_bias", "use_qk_norm",
    "norm_topk_prob", "use_sliding_window", "rope_interleave", "output_router_logits", "use_cache",
)  # fmt: skip
_TEXTS = ("hidden_act", "topk_method", "dtype", "torch_dtype")
_TABLES = ("rope_scaling", "rope_parameters", "id2label", "label2id")

Reader = Callable[[HubConfig, str], object]


def _whole(config: HubConfig, key: str) -> object:
    return config.integer(key, least=-LARGEST_SIZE)


def one_or_more_ids(config: HubConfig, key: str) -> object:
    """Return one token id, or a list of some."""
    several = isinstance(config.value(key), list)
    return config.items(key, int) if several else _whole(config, key)


def _texts(config: HubConfig, key: str) -> object:
    return config.items(key, str)


KINDS: dict[str, Reader] = {
    **dict.fromkeys(_WHOLE, _whole),
    **dict.fromkeys(_NUMBERS, HubConfig.number),
    **dict.fromkeys(_FLAGS, HubConfig.flag),
    **dict.fromkeys(_TEXTS, HubConfig.text),
    **dict.fromkeys(_TABLES, HubConfig.table),
    **dict.fromkeys(("layer_types", "mlp_layer_types"), _texts),
    "mlp_only_layers": lambda config, key: config.items(key, int),
    "eos_token_id": one_or_more_ids,
}
"""Whatever its range, the kind of each key that classes have in common or we read."""

_UNREAD = ("attention_dropout", "output_router_logits", "router_jitter_noise", "use_cache")
"""Without a default in our table, since nothing here depends on them."""
_NULL_ANYWHERE = {
    *_TABLES, "layer_types", "mlp_layer_types", "mlp_only_layers", "rope_theta", "sliding_window",
    "q_lora_rank", "clip_qkv", "rotary_dim",
}  # fmt: skip
_UNBOUND = ("deepseek_v2", "deepseek_v3", "dots1")
_NULL_IN: dict[str, tuple[str, ...]] = {
    "num_key_value_heads": (*_UNBOUND, "llama", "qwen2", "qwen3", "olmoe"),
    "partial_rotary_factor": tuple(
        kind for kind, has in CLASS_DEFAULTS.items() if has["partial_rotary_factor"] is None
    ),
    "head_dim": ("deepseek_v2", "deepseek_v3", "llama", "mistral", "mixtral"),
    "attention_dropout": (*_UNBOUND, "llama"),
    "norm_topk_prob": _UNBOUND,
    "n_group": ("deepseek_v2",),
    "topk_group": ("deepseek_v2",),
    "topk_method": ("deepseek_v2",),
    "max_window_layers": ("dots1",),
    "rope_interleave": ("deepseek_v3",),
}
"""Where a null is understood; some classes take one of which their model then makes an error."""


def check_kinds(config: HubConfig, model_type: str) -> None:
    """Refuse values that the class of a family in transformers does not take.

    Raises:
        ConfigError: Names key, value and what is wanted.
    """
    for key, read in KINDS.items():
        if key not in config.values:
            continue
        if config.values[key] is not None:
            read(config, key)
        elif (
            (key in config.defaults or key in _UNREAD)
            and key not in _NULL_ANYWHERE
            and model_type not in _NULL_IN.get(key, ())
        ):
            raise ConfigError(
                f"{config.origin}: {key} = null is not what transformers takes for {model_type}:"
                " state it, or leave the key out where the class has a default"
            )
