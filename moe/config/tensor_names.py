"""Names of a model's tensors in checkpoints: megatron-core's own, whatever the kernel set.

They are those of Transformer Engine's specs, in which a projection holds the norm before it, and
grouped experts have the names that separate ones would have.
"""

from enum import Enum

FP8_STATE = "fp8."
"""Beginning of the names of Transformer Engine's scales and amax histories, before the module's."""

EXTRA_STATE = "._extra_state"
"""End of the name that Transformer Engine gives a module's pickled state; never read."""

ROUTED_EXPERTS = ".experts.experts."
"""In the names of routed experts' weights, whose first axis is the expert."""

EXPERT_WEIGHTS = {
    "gate_up": "experts.linear_fc1.weight",
    "gate_up_bias": "experts.linear_fc1.bias",
    "down": "experts.linear_fc2.weight",
    "down_bias": "experts.linear_fc2.bias",
}
"""Grouped experts' parameters in kernel set `torch`, and their names below `mlp.experts`; gate's
rows come before those of up."""


FFN_NORM, FUSED_FFN_NORM = "pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_"
"""Beginnings of the norm before the feed-forward network: in sparse layers, and in dense ones."""


def norm_names(*, latent: bool, sparse: bool) -> dict[str, str]:
    """Return beginnings of a layer's norms that belong to the projection behind them.

    Args:
        latent: Whether attention is latent: its norms are before the projections up.
        sparse: Whether the feed-forward network has routed experts: a router comes first.

    Returns:
        The beginning in checkpoints of each such norm's own, both below the layer.
    """
    names = {} if sparse else {FFN_NORM: FUSED_FFN_NORM}
    if not latent:
        return names | {"input_layernorm.": "self_attention.linear_qkv.layer_norm_"}
    return names | {
        f"self_attention.{x}_layernorm.": f"self_attention.linear_{x}_up_proj.layer_norm_"
        for x in ("q", "kv")
    }


class Role(Enum):
    """What a tensor is in the model, which decides how it begins."""

    NORM = "norm"
    BIAS = "bias"
    INPUT = "input projection, embedding or attention sink"
    OUTPUT = "output projection of a residual branch"
    BALANCE = "balancing bias, which no gradient changes"


_ROLES = {
    Role.NORM: (
        *(f"{norm}.weight" for norm in ("input_layernorm", "pre_mlp_layernorm", "final_layernorm",
                                        "q_layernorm", "k_layernorm", "enorm", "hnorm")),
        *(f"{name}.layer_norm_weight" for name in ("linear_qkv", "linear_fc1", "linear_q_up_proj",
                                                   "linear_kv_up_proj")),
    ),
    Role.BIAS: ("linear_qkv.bias", "linear_proj.bias", "linear_fc1.bias", "linear_fc2.bias",
                "router.bias"),
    Role.INPUT: (
        *(f"{name}.weight" for name in ("word_embeddings", "output_layer", "router", "eh_proj",
                                        "linear_qkv", "linear_fc1", "linear_q_proj",
                                        "linear_q_down_proj", "linear_q_up_proj",
                                        "linear_kv_down_proj", "linear_kv_up_proj")),
        "shared_experts.gate_weight", "core_attention.softmax_offset",
    ),
    Role.OUTPUT: ("linear_proj.weight", "linear_fc2.weight"),
    Role.BALANCE: ("router.expert_bias",),
}  # fmt: skip
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}


def role_of(key: str) -> Role:
    """Return the role of the tensor with this name in a checkpoint.

    Raises:
        KeyError: No part of a model has such a name.
    """
    return _ROLE_OF[".".join(key.split(".")[-2:])]
