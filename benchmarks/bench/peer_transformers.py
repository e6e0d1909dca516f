"""Hugging Face transformers' implementation of the same model, timed beside ours."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench.instruments import synchronize
from benchmarks.errors import BenchmarkError
from data.loading.batch import Batch
from moe.config.experiment import Experiment
from moe.config.model import ModelConfig

PEER = "transformers"
EXPERT_IMPLEMENTATIONS = ("grouped_mm", "batched_mm", "eager")
"""Of transformers 5; the first is the fastest on CPU and GPU."""


class MeasuredPeer:
    """Their training step as users write it: forward with labels, backward, clip, fused AdamW."""

    def __init__(self, experiment: Experiment, device: torch.device, experts: str) -> None:
        """Build the model with random weights.

        Raises:
            BenchmarkError: transformers is missing or too old, or has no such architecture.
        """
        self.name = f"{PEER} ({experts})" if experiment.model.moe else PEER
        self.experiment, self.device = experiment, device
        dtype = torch.bfloat16 if experiment.precision.dtype == "bf16" else torch.float32
        self.model = build_peer(experiment.model, experts).to(device, dtype)
        self.model.train()
        train = experiment.train
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=train.learning_rate,
            betas=(train.adam_beta1, train.adam_beta2),
            weight_decay=train.weight_decay,
            fused=True,
        )
        self._experts: dict[Any, Tensor] = {}
        for router in self.routers():
            router.register_forward_hook(self._replace_experts)

    def routers(self) -> list[Any]:
        """Return the routers."""
        return [m for m in self.model.modules() if type(m).__name__.endswith("TopKRouter")]

    def _replace_experts(self, router: Any, _inputs: Any, outputs: Any) -> Any:
        """Route as ours did: the load is the same, and so is the work."""
        logits, weights, _ = outputs
        experts = self._experts[router]
        scores = torch.softmax(logits, -1, dtype=torch.float32).gather(1, experts)
        moe = self.experiment.model.moe
        if moe is not None and moe.normalize_top_k:
            scores = scores / scores.sum(-1, keepdim=True)
        return logits, scores.to(weights.dtype), experts

    def step(self, batches: list[Batch], decisions: Sequence[Sequence[Tensor]]) -> float:
        """Train on the micro-batches of one step; returns the duration, s.

        Args:
            batches: The micro-batches.
            decisions: The experts that ours chose, by sparse layer and micro-batch.
        """
        size, routers = self.experiment.train.micro_batch_size, self.routers()
        chosen = [[in_their_order(experts, size) for experts in layer] for layer in decisions]
        synchronize(self.device)
        begin = time.perf_counter()
        for number, batch in enumerate(batches):
            self._experts = {
                router: layer[number] for router, layer in zip(routers, chosen, strict=True)
            }
            tokens = batch.tokens.to(self.device)
            loss = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
            (loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.experiment.train.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        synchronize(self.device)
        return time.perf_counter() - begin


def in_their_order(experts: Tensor, num_sequences: int) -> Tensor:
    """Return tokens' experts [T, K] sequence after sequence: ours have all at each place."""
    by_place = experts.view(-1, num_sequences, experts.shape[1])
    return by_place.transpose(0, 1).reshape(experts.shape)


def parse_peer(text: str | None) -> str | None:
    """Read `transformers` or `transformers:EXPERTS`; returns the expert implementation.

    Raises:
        BenchmarkError: Another peer, or an implementation that there is not.
    """
    if text is None:
        return None
    name, _, experts = text.partition(":")
    experts = experts or EXPERT_IMPLEMENTATIONS[0]
    if name != PEER or experts not in EXPERT_IMPLEMENTATIONS:
        raise BenchmarkError(
            f"--peer {text!r}: there is {PEER}, with experts {', '.join(EXPERT_IMPLEMENTATIONS)}"
            f" (as in {PEER}:{EXPERT_IMPLEMENTATIONS[-1]})"
        )
    return experts


def build_peer(model: ModelConfig, experts: str) -> Any:
    """Build Hugging Face's model of the same architecture, with SDPA attention.

    Raises:
        BenchmarkError: transformers is missing, is older than 5, or has no such architecture.
    """
    try:
        import transformers
    except ImportError:
        raise BenchmarkError(
            "--peer transformers: it is not installed: pip install 'moescale[hub]'"
        ) from None
    if int(transformers.__version__.split(".")[0]) < 5:
        raise BenchmarkError(
            f"--peer transformers: {transformers.__version__} has no grouped experts: install 5"
        )
    family, values = _architecture(model)
    config = getattr(transformers, f"{family}Config")(**values)
    if model.moe is not None:
        config._experts_implementation = experts
    model_class = getattr(transformers, f"{family}ForCausalLM")
    return model_class._from_config(config, attn_implementation="sdpa")


def _architecture(model: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Return the transformers family that has this architecture, and its configuration."""
    _check_supported(model)
    values: dict[str, Any] = {
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_hidden_size or model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.kv_heads,
        "max_position_embeddings": model.max_seq_len,
        "rms_norm_eps": model.norm_epsilon,
        "tie_word_embeddings": model.tie_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope.theta},
        "pad_token_id": None,
    }
    moe = model.moe
    if moe is None:
        values["head_dim"] = model.query_head_dim
        return {"head": "Qwen3", "none": "Llama"}[model.qk_norm], values
    values |= {
        "num_experts_per_tok": moe.top_k,
        "output_router_logits": True,
        "router_aux_loss_coef": moe.aux_loss_coefficient,
    }
    if model.qk_norm == "none":
        sizes = {"intermediate_size": moe.expert_ffn_hidden_size, "head_dim": model.query_head_dim}
        return "Mixtral", values | sizes | {"num_local_experts": moe.num_experts}
    values |= {"num_experts": moe.num_experts, "norm_topk_prob": moe.normalize_top_k}
    if model.qk_norm == "full":
        return "Olmoe", values | {"intermediate_size": moe.expert_ffn_hidden_size}
    dense = [i for i, sparse in enumerate(model.sparse_layers) if not sparse]
    sizes = {"moe_intermediate_size": moe.expert_ffn_hidden_size, "head_dim": model.query_head_dim}
    return "Qwen3Moe", values | sizes | {"mlp_only_layers": dense}


def _check_supported(model: ModelConfig) -> None:
    """Raise BenchmarkError for what Qwen3-MoE, Mixtral, OLMoE, Qwen3 and Llama do not have."""
    moe = model.moe
    unsupported = {
        "mla": model.mla is not None,
        "rope.scaling": model.rope.scaling != "none" or model.rope.fraction != 1,
        "qkv_bias": model.qkv_bias,
        "linear_bias": model.linear_bias,
        "activation": model.activation != "swiglu",
        "mtp_layers": model.mtp_layers > 0,
        "sliding_window": model.sliding_window is not None,
        "attention_sinks": model.attention_sinks,
        'qk_norm = "full" without experts': moe is None and model.qk_norm == "full",
    }
    if moe is not None:
        allowed = all(model.sparse_layers) or model.qk_norm == "head"
        unsupported |= {
            "moe.shared_expert_ffn_hidden_size": moe.shared_expert_ffn_hidden_size > 0,
            "moe.score_function": moe.score_function != "softmax",
            "moe.num_groups": moe.num_groups is not None,
            "moe.capacity_factor": moe.capacity_factor is not None,
            "moe.scaling_factor": moe.scaling_factor != 1,
            "moe.normalize_top_k": model.qk_norm == "none" and not moe.normalize_top_k,
            "dense layers among sparse ones": not allowed,
        }
    used = [name for name, is_used in unsupported.items() if is_used]
    if used:
        raise BenchmarkError(
            f"--peer transformers: the same model is not offered for {', '.join(used)}: leave"
            " --peer out, or change the model"
        )
