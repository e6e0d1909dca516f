"""What a key missing in `config.json` means: the default of the family's class in transformers.

Read from `configuration_*.py` of transformers 4.57 and 5.24, which agree on all of these but
`router_aux_loss_coef` of GPT-OSS (of 5 here; it weighs a loss in training only). Sizes are not
here: a file must state them. Tests compare the table with the installed classes, key by key.
"""

from typing import Any

_COMMON: dict[str, Any] = {
    "hidden_act": "silu", "initializer_range": 0.02, "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "rope_scaling": None, "rope_parameters": None,
    "partial_rotary_factor": None, "num_key_value_heads": None, "head_dim": None,
    "attention_bias": False,
}  # fmt: skip
"""As most classes have it; null heads follow from the other sizes."""
_WINDOWS: dict[str, Any] = {
    "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
    "layer_types": None,
}  # fmt: skip
_SOFTMAX_ROUTER: dict[str, Any] = {"norm_topk_prob": False, "router_aux_loss_coef": 0.001}
_SIGMOID_ROUTER: dict[str, Any] = {
    "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.0,
    "n_shared_experts": 1, "aux_loss_alpha": 0.001, "seq_aux": True,
}  # fmt: skip
_LATENT: dict[str, Any] = {"q_lora_rank": 1536, "aux_loss_alpha": 0.001, "seq_aux": True}
_YARN_32 = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip

_OWN: dict[str, dict[str, Any]] = {
    "llama": {"mlp_bias": False},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": _WINDOWS | {"num_key_value_heads": 32},
    "qwen3": _WINDOWS | {"num_key_value_heads": 32, "head_dim": 128},
    "mixtral": {
        "num_key_value_heads": 8, "sliding_window": None, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
        "router_aux_loss_coef": 0.001,
    },
    "olmoe": _SOFTMAX_ROUTER
    | {"rms_norm_eps": 1e-5, "router_aux_loss_coef": 0.01, "clip_qkv": None},
    "qwen2_moe": _SOFTMAX_ROUTER
    | _WINDOWS
    | {
        "num_key_value_heads": 16, "decoder_sparse_step": 1, "mlp_only_layers": None,
        "qkv_bias": True,
    },
    "qwen3_moe": _SOFTMAX_ROUTER
    | {
        "num_key_value_heads": 4, "decoder_sparse_step": 1, "mlp_only_layers": None,
        "use_sliding_window": False, "sliding_window": 4096,
    },
    "gpt_oss": {
        "num_key_value_heads": 8, "head_dim": 64, "rms_norm_eps": 1e-5, "rope_theta": 150_000.0,
        "rope_parameters": _YARN_32, "sliding_window": 128, "layer_types": None,
        "attention_bias": True, "swiglu_alpha": 1.702, "swiglu_limit": 7.0,
        "router_aux_loss_coef": 0.001,
    },
    "minimax_m2": {
        "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 5e6, "router_aux_loss_coef": 0.001,
        "rotary_dim": None,
    },
    "deepseek_v2": _LATENT
    | {
        "first_k_dense_replace": 0, "routed_scaling_factor": 1.0, "norm_topk_prob": False,
        "topk_method": "greedy", "n_group": None, "topk_group": None, "n_shared_experts": 2,
        "mlp_bias": False,
    },
    "deepseek_v3": _LATENT
    | _SIGMOID_ROUTER
    | {
        "first_k_dense_replace": 3, "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4,
        "rope_interleave": True, "num_key_value_heads": 128,
    },
    "glm4_moe_lite": _LATENT
    | _SIGMOID_ROUTER
    | {
        "q_lora_rank": 768, "routed_scaling_factor": 1.8, "rms_norm_eps": 1e-5,
        "mlp_layer_types": None, "rope_interleave": True, "num_key_value_heads": 20,
    },
    "glm4_moe": _SIGMOID_ROUTER
    | {
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "first_k_dense_replace": 1,
        "use_qk_norm": False, "partial_rotary_factor": 0.5,
    },
    "solar_open": _SIGMOID_ROUTER
    | {
        "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
    },
    "dots1": _SIGMOID_ROUTER
    | {
        "num_key_value_heads": 32, "first_k_dense_replace": 0, "norm_topk_prob": False,
        "n_shared_experts": None, "sliding_window": 4096, "max_window_layers": 62,
        "layer_types": None,
    },
}  # fmt: skip
CLASS_DEFAULTS = {model_type: _COMMON | own for model_type, own in _OWN.items()}
"""By `model_type`; null: the class says null, or knows no such key and goes without."""
