"""Small random models of transformers' own classes, and what they compute."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.needs import need

COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "intermediate_size": 48,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 8.0,
    "beta_slow": 1.0,
}
LATENT = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": 24}),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 24,
            "mlp_only_layers": [0],
        },
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 16,
            "head_dim": 16,
            "norm_topk_prob": True,
        },
    ),
    "olmoe": ("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": (
        "DeepseekV2",
        LATENT
        | {
            "n_routed_experts": 8,
            "num_experts_per_tok": 4,
            "n_shared_experts": 2,
            "q_lora_rank": None,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 1.5,
            "rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.7},
        },
    ),
    "deepseek_v3": (
        "DeepseekV3",
        LATENT
        | {
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "q_lora_rank": 20,
            "n_group": 2,
            "topk_group": 1,
            "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 0.8},
        },
    ),
    "glm4_moe": (
        "Glm4Moe",
        {
            "head_dim": 16,
            "attention_bias": True,
            "use_qk_norm": True,
            "moe_intermediate_size": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "routed_scaling_factor": 1.5,
        },
    ),
    "glm4_moe_lite": (
        "Glm4MoeLite",
        LATENT
        | {
            "v_head_dim": 20,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "n_shared_experts": 1,
            "q_lora_rank": 20,
            "rms_norm_eps": 1e-2,
        },
    ),
    "solar_open": (
        "SolarOpen",
        {
            "head_dim": 16,
            "attention_bias": True,
            "moe_intermediate_size": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
        },
    ),
    "dots1": (
        "Dots1",
        {
            "moe_intermediate_size": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "sliding_window": 24,
            "max_window_layers": 0,
        },
    ),
    "minimax_m2": (
        "MiniMaxM2",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "rotary_dim": 8},
    ),
    "gpt_oss": (
        "GptOss",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 8,
            "sliding_window": 8,
            "rope_parameters": YARN | {"truncate": False},
        },
    ),
    "llama": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "mistral": ("Mistral", {"sliding_window": 24}),
    "qwen2": ("Qwen2", {"head_dim": 12}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
}
LENGTH, PADDING = 160, 37
"""Longer than any model was made for; tokens of padding before the second sequence."""


@dataclass(frozen=True)
class Reference:
    """What transformers computes of a model's own weights."""

    tokens: Tensor
    logits: Tensor
    padded_logits: Tensor
    """With the first PADDING tokens of the second row masked; rows' own tokens only count."""
    loss: float
    gradients: dict[str, Tensor]
    """Of the mean cross-entropy, by the names of the files."""


def make_model(kind: str, directory: Path, **changes: Any) -> Any:
    """Save a random model, with values of its configuration changed; returns it."""
    need("hub")
    import transformers

    stem, values = MODELS[kind]
    torch.manual_seed(sum(map(ord, kind)))
    config = getattr(transformers, f"{stem}Config")(**COMMON | values | changes)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{stem}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in name:
                continue
            noise = torch.randn_like(weight) * 0.15
            weight.copy_(1 + noise if "norm" in name else noise)
    model.save_pretrained(directory)
    return model


def reference(model: Any) -> Reference:
    """Run a model: long sequences, padded ones, and a step's gradients."""
    tokens = torch.randint(0, COMMON["vocab_size"], (2, LENGTH))
    mask = torch.ones_like(tokens)
    mask[1, :PADDING] = 0
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        padded = model(tokens, attention_mask=mask, position_ids=positions).logits
    model.zero_grad()
    logits = model(tokens).logits
    targets = tokens[:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets)
    loss.backward()
    return Reference(tokens, logits.detach(), padded, loss.item(), _file_gradients(model))


def _file_gradients(model: Any) -> dict[str, Tensor]:
    """Return gradients as the files name and shape tensors: saved in the weights' place."""
    import tempfile

    from safetensors.torch import load_file

    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder, "model.safetensors"))
