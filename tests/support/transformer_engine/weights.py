"""The weights of kernel set `te` by their names in kernel set `torch`."""

import re
from typing import Any

import torch
from torch import Tensor

FUSED_NORMS = (
    ("self_attention.linear_qkv.layer_norm_", "input_layernorm."),
    ("mlp.linear_fc1.layer_norm_", "pre_mlp_layernorm."),
    ("linear_q_up_proj.layer_norm_", "q_layernorm."),
    ("linear_kv_up_proj.layer_norm_", "kv_layernorm."),
)
"""Norms that Transformer Engine computes together with the projection behind them."""
EXPERT = re.compile(
    r"(?P<path>.*experts\.)linear_fc(?P<which>[12])\.(?P<kind>weight|bias)(?P<expert>\d+)"
)
STACKED = {"1": "gate_up", "2": "down"}


def torch_weight(name: str, weights: dict[str, Tensor], shape: torch.Size) -> Tensor:
    """Return what kernel set `torch` keeps as the weight that `te` calls `name`."""
    if expert := EXPERT.fullmatch(name):
        stacked = expert["path"] + STACKED[expert["which"]]
        stacked += "_bias" if expert["kind"] == "bias" else ""
        return weights[stacked][int(expert["expert"])].reshape(shape)
    for fused, alone in FUSED_NORMS:
        name = name.replace(fused, alone)
    return weights[name]


def weights_of(model: Any) -> dict[str, Tensor]:
    """Return a model's parameters and balancing biases."""
    biases = {k: v for k, v in model.named_buffers() if k.endswith("expert_bias")}
    return dict(model.named_parameters()) | biases


@torch.no_grad()
def copy_weights(source: Any, target: Any) -> None:
    """Give a model in `te` the weights of one in `torch`."""
    weights = weights_of(source)
    for name, weight in weights_of(target).items():
        weight.copy_(torch_weight(name, weights, weight.shape))


def gradients(model: Any) -> dict[str, Tensor]:
    """Return the gradients of a model; zeros where nothing reached a weight."""
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in model.named_parameters()
    }
