"""What layouts and memory models must know of a model and its batches: plain numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Parameters of one part, by what tensor parallelism does to them."""

    cut: int = 0
    """Divided over tensor-parallel ranks."""
    whole: int = 0
    """Kept by every tensor-parallel rank: norms, routers, biases after row-parallel products."""
    latent: int = 0
    """Down-projections of latent attention: divided by kernel set `torch`, whole with `te`."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.cut + self.whole + self.latent


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One decoder-only Transformer. Sizes are those of the whole model; 0 means absent."""

    hidden_size: int
    vocab_size: int
    num_heads: int
    num_kv_heads: int
    """Key-value heads that are cut over ranks (latent attention: `num_heads`)."""
    qk_head_dim: int
    v_head_dim: int
    sparse_layers: tuple[bool, ...]
    """For each layer, whether it has routed experts."""
    mtp_layers: int = 0
    """Multi-token-prediction layers, each of the last layer's kind, on the last stage."""
    tie_embeddings: bool = False
    normalizes_qk: bool = False
    """Whether queries and keys pass an RMSNorm, which keeps its input for the backward pass."""
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    """Above 0: latent attention."""
    qk_rope_head_dim: int = 0
    ffn_hidden_size: int = 0
    num_experts: int = 0
    top_k: int = 0
    expert_ffn_hidden_size: int = 0
    shared_expert_ffn_hidden_size: int = 0
    capacity_factor: float | None = None

    attention: Weights
    """One layer's attention with the layer's norms."""
    dense_ffn: Weights = Weights()
    """One dense layer's feed-forward network."""
    expert: Weights = Weights()
    """One routed expert (`cut` over expert-tensor-parallel ranks)."""
    beside_experts: Weights = Weights()
    """One sparse layer's router and shared experts."""
    mtp: Weights = Weights()
    """One multi-token-prediction layer without its Transformer layer."""

    @property
    def num_layers(self) -> int:
        """Transformer layers, without multi-token prediction."""
        return len(self.sparse_layers)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one optimizer step trains on."""

    seq_len: int
    """Tokens a sequence."""
    micro_batch_size: int
    """Sequences of one forward pass on one data-parallel rank."""
    global_batch_size: int
    """Sequences of one optimizer step over all ranks."""
