"""Every architecture option as a small model, and what ranks compute of it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe.config.experiment import Experiment
from moe.config.model import ModelConfig
from tests.support.layout_equivalence import Shard, shards, started

DENSE: dict[str, Any] = {
    "num_layers": 2, "hidden_size": 32, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8,
    "ffn_hidden_size": 40, "vocab_size": 264, "max_seq_len": 64,
}  # fmt: skip
MOE: dict[str, Any] = {"num_experts": 8, "top_k": 2, "expert_ffn_hidden_size": 12}
LATENT: dict[str, Any] = {
    "kv_lora_rank": 10, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
}  # fmt: skip
YARN = {"scaling": "yarn", "factor": 4.0, "original_max_seq_len": 16, "beta_fast": 4.0}
LLAMA3 = {"scaling": "llama3", "factor": 8.0, "original_max_seq_len": 32}
GROUPS = {"num_groups": 4, "group_top_k": 2}
SIGMOID = {"score_function": "sigmoid", "expert_bias": True}
SHARED = {"shared_expert_ffn_hidden_size": 24}


def sparse(**options: Any) -> dict[str, Any]:
    return DENSE | {"moe": MOE | options}


def latent(**options: Any) -> dict[str, Any]:
    whole = {k: v for k, v in sparse().items() if k not in {"num_kv_heads", "head_dim"}}
    return whole | {"mla": LATENT | options}


MODELS: dict[str, dict[str, Any]] = {
    "dense": DENSE,
    "sparse": sparse(),
    "tied": sparse() | {"tie_embeddings": True},
    "all_heads": {key: value for key, value in sparse().items() if key != "num_kv_heads"},
    "qkv_bias": sparse() | {"qkv_bias": True},
    "linear_bias": sparse(first_dense_layers=1) | {"linear_bias": True},
    "qk_norm_head": sparse() | {"qk_norm": "head"},
    "qk_norm_full": sparse() | {"qk_norm": "full"},
    "clamped_swiglu": sparse(first_dense_layers=1) | {"activation": "clamped_swiglu"},
    "window": sparse() | {"sliding_window": 6},
    "window_and_full": sparse() | {"sliding_window": 6, "full_attention_interval": 2},
    "sinks": sparse() | {"attention_sinks": True},
    "sinks_window": sparse()
    | {"attention_sinks": True, "sliding_window": 6, "full_attention_interval": 2},
    "partial_rotary": sparse() | {"rope": {"fraction": 0.5}},
    "yarn": sparse() | {"rope": YARN},
    "yarn_partial": sparse() | {"rope": YARN | {"fraction": 0.5, "mscale_all_dim": 0.5}},
    "yarn_unrounded": sparse() | {"rope": YARN | {"round_correction_range": False}},
    "llama3_rope": sparse() | {"rope": LLAMA3},
    "latent": latent(),
    "latent_dense": {k: v for k, v in latent().items() if k != "moe"},
    "latent_queries": latent(q_lora_rank=14),
    "latent_yarn": latent() | {"rope": YARN | {"mscale": 0.7, "mscale_all_dim": 0.9}},
    "latent_llama3": latent() | {"rope": LLAMA3},
    "first_dense": sparse(first_dense_layers=1),
    "interleaved": sparse(layer_interval=2),
    "fine_grained": sparse(num_experts=32, top_k=6, expert_ffn_hidden_size=4),
    "one_expert": sparse(top_k=1, normalize_top_k=False),
    "not_normalised": sparse(normalize_top_k=False, scaling_factor=1.7),
    "sigmoid": sparse(score_function="sigmoid"),
    "sigmoid_scaled": sparse(**SIGMOID, scaling_factor=2.5, load_balancing="none"),
    "sigmoid_not_normalised": sparse(**SIGMOID, normalize_top_k=False),
    "groups": sparse(**GROUPS, top_k=4),
    "groups_by_best": sparse(**GROUPS, top_k=4, group_score_experts=1),
    "sigmoid_bias_groups": sparse(**SIGMOID, **GROUPS),
    "shared": sparse(**SHARED),
    "shared_gate": sparse(**SHARED, shared_expert_gate=True),
    "z_loss": sparse(z_loss_coefficient=0.05),
    "seq_aux_loss": sparse(load_balancing="seq_aux_loss", aux_loss_coefficient=0.2),
    "seq_aux_loss_sigmoid": sparse(**SIGMOID, load_balancing="seq_aux_loss"),
    "global_aux_loss": sparse(load_balancing="global_aux_loss", aux_loss_coefficient=0.2),
    "sinkhorn": sparse(load_balancing="sinkhorn"),
    "sinkhorn_one_expert": sparse(load_balancing="sinkhorn", top_k=1, normalize_top_k=False),
    "capacity": sparse(capacity_factor=0.7),
    "capacity_by_position": sparse(capacity_factor=0.8, token_drop_policy="position"),
    "forced_balance": sparse(forced_balance=True),
    "router_fp64": sparse(router_dtype="fp64"),
    "predicting": sparse(first_dense_layers=1) | {"mtp_layers": 1},
    "predicting_twice": sparse(**SHARED) | {"mtp_layers": 2, "mtp_loss_coefficient": 0.3},
    "predicting_tied": sparse() | {"mtp_layers": 1, "tie_embeddings": True},
    "deepseek_v3": latent(q_lora_rank=14)
    | {
        "moe": MOE | SIGMOID | GROUPS | SHARED | {"first_dense_layers": 1},
        "mtp_layers": 1,
        "rope": YARN | {"mscale_all_dim": 1.0},
    },
    "gpt_oss": sparse()
    | {
        "linear_bias": True, "activation": "clamped_swiglu", "sliding_window": 6,
        "full_attention_interval": 2, "attention_sinks": True, "rope": YARN,
    },
}  # fmt: skip
"""Each named for what it is there for."""
CONFIGS = {name: ModelConfig.model_validate(values) for name, values in MODELS.items()}


@dataclass(frozen=True)
class Computed:
    """What one rank computed of one model."""

    weights: list[Shard]
    gradients: list[Shard]
    """Of the step's mean loss; balancing biases: after the step."""
    loss_sum: float
    tokens: float
    batches: list[dict[str, NDArray[Any]]]
    logits: NDArray[np.float32] | None
    """Of the first micro-batch, where one process has the whole model."""
    load: NDArray[np.int64]
    """[sparse layers, experts] of this rank's tokens."""


def compute(experiments: dict[str, Experiment]) -> dict[str, Computed]:
    """Fill each model with random numbers and run the first step's forward and backward pass.

    All have one layout: the engine is started once.
    """
    return {name: _compute(trainer) for name, trainer in _trainers(experiments)}


def _trainers(experiments: dict[str, Experiment]) -> Iterator[tuple[str, Any]]:
    from moe.training.logs.aux_losses import pop_mean_aux_losses
    from moe.training.startup.build import build_trainer
    from parallel.engine.start import start_engine, stop_engine

    engine = start_engine(next(iter(experiments.values())).parallel, seed=0)
    for name, experiment in experiments.items():
        trainer = build_trainer(experiment, engine)
        yield name, trainer
        pop_mean_aux_losses(trainer)
        trainer.close()
    stop_engine()


def _compute(trainer: Any) -> Computed:
    import torch

    for chunk in trainer.chunks:
        randomize(chunk.module)
    weights = [replace(shard, values=shard.values.copy()) for shard in shards(trainer.chunks)]
    batches = trainer.loader.step(0)
    logits = None
    if trainer.engine.world_size == 1:
        logits = _logits(trainer.chunks[0].module.eval(), batches[0])
    trainer.optimizer.zero_grad()
    with trainer.routing.counting():
        total = trainer.forward_backward(batches, forward_only=False)
    with torch.no_grad():
        for chunk in trainer.chunks:
            for parameter in chunk.module.parameters():
                parameter.data.copy_(parameter.main_grad)
    return Computed(
        weights=weights,
        gradients=shards(trainer.chunks),
        loss_sum=float(total[0]),
        tokens=float(total[1]),
        batches=[{k: v.numpy() for k, v in vars(b).items() if v is not None} for b in batches],
        logits=logits,
        load=trainer.routing.pop().counts.numpy(),
    )


def _logits(chunk: Any, batch: Any) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        logits = chunk(batch.tokens, batch.position_ids, batch.cu_seqlens).float()
        out: NDArray[np.float32] = logits.cpu().numpy()
    return out


def randomize(chunk: Any) -> None:
    """Fill all tensors with numbers that follow from their name and place in the whole."""
    import torch
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories

    state = chunk.sharded_state_dict()
    apply_factories(state)
    for shard in nested_values(state):
        if not isinstance(shard, ShardedTensor):
            continue
        seed = int.from_bytes(hashlib.sha256(shard.key.encode()).digest()[:7], "big")
        noise = torch.randn(shard.global_shape, generator=torch.Generator().manual_seed(seed))
        whole = 1 + 0.15 * noise if "norm" in shard.key else 0.2 * noise
        lead = (1,) * shard.prepend_axis_num
        sizes = (*lead, *shard.local_shape)
        part = whole[
            tuple(slice(a, a + n) for a, n in zip(shard.global_offset, sizes, strict=True))
        ]
        with torch.no_grad():
            shard.data.copy_(part.reshape(shard.data.shape))


def router_formats(experiments: dict[str, Experiment]) -> dict[str, str]:
    """Return the number format in which each model's first router decides."""
    from moe.training.step import train_step

    found: dict[str, str] = {}
    for name, trainer in _trainers(experiments):
        router = trainer.chunks[0].module.decoder.layers[0].mlp.router
        router.decision_hooks.append(
            lambda _layer, decision, name=name: found.setdefault(name, str(decision.logits.dtype))
        )
        train_step(trainer, 0)
    return found


def tokens_counted_for_bias(experiment: Experiment) -> tuple[list[int], list[int]]:
    """Return each router's count after an evaluation, and after one more forward pass."""
    import torch

    from moe.training.held_out import evaluate_held_out

    with started(experiment) as trainer:
        routers = [m for c in trainer.chunks for m in c.module.modules() if hasattr(m, "rule")]

        def counts() -> list[int]:
            return [int(router.local_tokens_per_expert.sum()) for router in routers]

        evaluate_held_out(trainer)
        evaluated = counts()
        batch = trainer.loader.step(0)[0]
        with torch.enable_grad():
            trainer.chunks[0].module(batch.tokens, batch.position_ids, None)
        return evaluated, counts()
