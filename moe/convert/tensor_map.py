"""Which block of which of our tensors is which block of which Hugging Face tensor.

The map is computed from the model's configuration alone; both directions of conversion follow it.
Our tensors are those of a checkpoint, unsharded (`moe.config.tensor_names`).
"""

from dataclasses import dataclass, field

from moe.config.model import ModelConfig
from moe.config.tensor_names import norm_names
from moe.storage.safetensors_io import TensorShape, Where


@dataclass(frozen=True, kw_only=True)
class Names:
    """How a family of models names what differs between families."""

    mlp: str = "mlp"
    router: str = "gate"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    shared: str = "shared_experts"
    is_bias_in_router: bool = True
    """Where the balancing bias is: in the router, or beside it (MiniMax-M2)."""
    has_empty_shared: bool = False
    """Whether a model without shared experts has tensors of no numbers for them (DeepSeek)."""
    fused_experts: bool = False
    """All experts of a layer in one tensor, gate and up interleaved (GPT-OSS)."""


@dataclass(frozen=True, kw_only=True)
class BlockPair:
    """A block of our tensor, and the block of theirs that it equals."""

    ours: str
    start: TensorShape
    shape: TensorShape
    theirs: str
    where: Where
    """Slices of their tensor; what they leave has our block's numbers in our order."""
    transposed: bool = False
    """After slicing, their last two axes are swapped."""


@dataclass(frozen=True)
class TensorMap:
    """All tensors of a model on both sides; the pairs cover each side exactly once."""

    ours: dict[str, TensorShape] = field(default_factory=dict)
    theirs: dict[str, TensorShape] = field(default_factory=dict)
    pairs: list[BlockPair] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    """Their tensors that only repeat another (DeepSeek-V3's prediction layers)."""
    possible_copies: dict[str, str] = field(default_factory=dict)
    """Tensors that some files have, repeating another (a tied LM head)."""
    empty: dict[str, TensorShape] = field(default_factory=dict)
    """Their tensors without numbers, which some files leave out."""

    def same(self, ours: str, theirs: str, *shape: int) -> None:
        """Map a tensor to a tensor of the same shape."""
        where = tuple(slice(None) for _ in shape)
        self.block(ours, shape, theirs, shape, (0,) * len(shape), shape, where)

    def block(  # noqa: PLR0913 - both sides' shape and position
        self,
        ours: str,
        our_shape: TensorShape,
        theirs: str,
        their_shape: TensorShape,
        start: TensorShape,
        shape: TensorShape,
        where: Where,
        transposed: bool = False,
    ) -> None:
        """Map a block of one tensor to a block of another."""
        self.ours[ours] = our_shape
        self.theirs[theirs] = their_shape
        self.pairs.append(
            BlockPair(
                ours=ours,
                start=start,
                shape=shape,
                theirs=theirs,
                where=where,
                transposed=transposed,
            )
        )


def tensor_map(model: ModelConfig, names: Names) -> TensorMap:
    """Return the map of a model in a family's names."""
    mapping, hidden = TensorMap(), model.hidden_size
    table = (model.vocab_size, hidden)
    mapping.same("embedding.word_embeddings.weight", "model.embed_tokens.weight", *table)
    for i, sparse in enumerate(model.sparse_layers):
        _layer(mapping, model, names, (f"decoder.layers.{i}", f"model.layers.{i}"), sparse=sparse)
    for i in range(model.mtp_layers):
        _prediction_layer(mapping, model, names, i)
    mapping.same("decoder.final_layernorm.weight", "model.norm.weight", hidden)
    if model.tie_embeddings:
        mapping.possible_copies["lm_head.weight"] = "model.embed_tokens.weight"
    else:
        mapping.same("output_layer.weight", "lm_head.weight", *table)
    return mapping


def _layer(
    mapping: TensorMap, model: ModelConfig, names: Names, at: tuple[str, str], *, sparse: bool
) -> None:
    ours, theirs = at
    hidden = model.hidden_size
    norms = norm_names(latent=model.mla is not None, sparse=sparse)
    for our_norm, their_norm in (("input", "input"), ("pre_mlp", "post_attention")):
        name = f"{our_norm}_layernorm."
        mapping.same(
            f"{ours}.{norms.get(name, name)}weight",
            f"{theirs}.{their_norm}_layernorm.weight",
            hidden,
        )
    attention = (f"{ours}.self_attention", f"{theirs}.self_attn")
    if model.mla is not None:
        _latent_attention(mapping, model, attention)
    else:
        _attention(mapping, model, attention)
    mlp = (f"{ours}.mlp", f"{theirs}.{names.mlp}")
    if sparse:
        _sparse_ffn(mapping, model, names, mlp)
    else:
        _dense_ffn(mapping, model, mlp, model.ffn_hidden_size or 0)


def _attention(mapping: TensorMap, model: ModelConfig, at: tuple[str, str]) -> None:
    ours, theirs = at
    hidden, dim = model.hidden_size, model.query_head_dim
    _qkv(mapping, model, at, "weight", (hidden,))
    if model.qkv_bias or model.linear_bias:
        _qkv(mapping, model, at, "bias", ())
    width = model.num_heads * dim
    mapping.same(f"{ours}.linear_proj.weight", f"{theirs}.o_proj.weight", hidden, width)
    if model.linear_bias:
        mapping.same(f"{ours}.linear_proj.bias", f"{theirs}.o_proj.bias", hidden)
    if model.attention_sinks:
        sinks = f"{ours}.core_attention.softmax_offset"
        mapping.same(sinks, f"{theirs}.sinks", model.num_heads)
    if model.qk_norm != "none":
        heads = {"q": 1, "k": 1}
        if model.qk_norm == "full":
            heads = {"q": model.num_heads, "k": model.kv_heads}
        for projection, count in heads.items():
            norm = f"{theirs}.{projection}_norm.weight"
            mapping.same(f"{ours}.{projection}_layernorm.weight", norm, count * dim)


def _qkv(
    mapping: TensorMap, model: ModelConfig, at: tuple[str, str], kind: str, columns: TensorShape
) -> None:
    """Ours holds, group by group, the group's query heads, its key head, its value head."""
    dim, groups = model.query_head_dim, model.kv_heads
    queries = model.num_heads // groups * dim
    full_shape = (groups * (queries + 2 * dim), *columns)
    for group in range(groups):
        row = group * (queries + 2 * dim)
        for projection, size in (("q", queries), ("k", dim), ("v", dim)):
            mapping.block(
                f"{at[0]}.linear_qkv.{kind}",
                full_shape,
                f"{at[1]}.{projection}_proj.{kind}",
                (groups * size, *columns),
                (row, *(0 for _ in columns)),
                (size, *columns),
                (slice(group * size, (group + 1) * size),),
            )
            row += size


def _latent_attention(mapping: TensorMap, model: ModelConfig, at: tuple[str, str]) -> None:
    mla, hidden, heads = model.mla, model.hidden_size, model.num_heads
    assert mla is not None
    ours, theirs = at
    queries, rank = heads * model.query_head_dim, mla.kv_lora_rank
    up = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    tensors: list[tuple[str, str, TensorShape]] = [
        ("linear_kv_down_proj.weight", "kv_a_proj_with_mqa", (rank + mla.qk_rope_head_dim, hidden)),
        ("linear_kv_up_proj.layer_norm_weight", "kv_a_layernorm", (rank,)),
        ("linear_kv_up_proj.weight", "kv_b_proj", (up, rank)),
        ("linear_proj.weight", "o_proj", (hidden, heads * mla.v_head_dim)),
    ]
    if mla.q_lora_rank is None:
        tensors.append(("linear_q_proj.weight", "q_proj", (queries, hidden)))
    else:
        tensors += [
            ("linear_q_down_proj.weight", "q_a_proj", (mla.q_lora_rank, hidden)),
            ("linear_q_up_proj.layer_norm_weight", "q_a_layernorm", (mla.q_lora_rank,)),
            ("linear_q_up_proj.weight", "q_b_proj", (queries, mla.q_lora_rank)),
        ]
    for our_name, their_name, shape in tensors:
        mapping.same(f"{ours}.{our_name}", f"{theirs}.{their_name}.weight", *shape)


def _dense_ffn(mapping: TensorMap, model: ModelConfig, at: tuple[str, str], inner: int) -> None:
    """Ours holds the gate's rows before those of up."""
    ours, theirs = at
    kinds: dict[str, TensorShape] = {"weight": (model.hidden_size,)}
    if model.linear_bias:
        kinds["bias"] = ()
    for kind, columns in kinds.items():
        for i, projection in enumerate(("gate_proj", "up_proj")):
            mapping.block(
                f"{ours}.linear_fc1.{kind}",
                (2 * inner, *columns),
                f"{theirs}.{projection}.{kind}",
                (inner, *columns),
                (i * inner, *(0 for _ in columns)),
                (inner, *columns),
                (slice(None),),
            )
        down = (model.hidden_size, *((inner,) if kind == "weight" else ()))
        mapping.same(f"{ours}.linear_fc2.{kind}", f"{theirs}.down_proj.{kind}", *down)


def _sparse_ffn(mapping: TensorMap, model: ModelConfig, names: Names, at: tuple[str, str]) -> None:
    moe, hidden = model.moe, model.hidden_size
    assert moe is not None
    ours, theirs = at
    experts = moe.num_experts
    gate = f"{theirs}.{names.router}"
    mapping.same(f"{ours}.router.weight", f"{gate}.weight", experts, hidden)
    if model.linear_bias:
        mapping.same(f"{ours}.router.bias", f"{gate}.bias", experts)
    if moe.expert_bias:
        place = gate if names.is_bias_in_router else theirs
        mapping.same(f"{ours}.router.expert_bias", f"{place}.e_score_correction_bias", experts)
    if names.fused_experts:
        _fused_experts(mapping, model, at)
    else:
        _separate_experts(mapping, model, names, at)
    if inner := moe.shared_expert_ffn_hidden_size:
        shared = (f"{ours}.shared_experts", f"{theirs}.{names.shared}")
        _dense_ffn(mapping, model, shared, inner)
    elif names.has_empty_shared:
        shapes = {names.gate: (0, hidden), names.up: (0, hidden), names.down: (hidden, 0)}
        for name, shape in shapes.items():
            mapping.empty[f"{theirs}.{names.shared}.{name}.weight"] = shape
    if moe.shared_expert_gate:
        weight = f"{theirs}.{names.shared}_gate.weight"
        mapping.same(f"{ours}.shared_experts.gate_weight", weight, 1, hidden)


def _separate_experts(
    mapping: TensorMap, model: ModelConfig, names: Names, at: tuple[str, str]
) -> None:
    moe, hidden = model.moe, model.hidden_size
    assert moe is not None
    experts, inner = moe.num_experts, moe.expert_ffn_hidden_size
    kinds: dict[str, tuple[TensorShape, TensorShape]] = {"weight": ((hidden,), (inner,))}
    if model.linear_bias:
        kinds["bias"] = ((), ())
    for kind, (inputs, inner_inputs) in kinds.items():
        for e in range(experts):
            theirs = f"{at[1]}.experts.{e}"
            for i, projection in enumerate((names.gate, names.up)):
                mapping.block(
                    f"{at[0]}.experts.experts.linear_fc1.{kind}",
                    (experts, 2 * inner, *inputs),
                    f"{theirs}.{projection}.{kind}",
                    (inner, *inputs),
                    (e, i * inner, *(0 for _ in inputs)),
                    (1, inner, *inputs),
                    (slice(None),),
                )
            mapping.block(
                f"{at[0]}.experts.experts.linear_fc2.{kind}",
                (experts, hidden, *inner_inputs),
                f"{theirs}.{names.down}.{kind}",
                (hidden, *inner_inputs),
                (e, 0, *(0 for _ in inner_inputs)),
                (1, hidden, *inner_inputs),
                (slice(None),),
            )


def _fused_experts(mapping: TensorMap, model: ModelConfig, at: tuple[str, str]) -> None:
    """GPT-OSS: [E, H, 2F] with gate and up in turn, and [E, F, H]; biases alike."""
    moe, hidden = model.moe, model.hidden_size
    assert moe is not None
    experts, inner = moe.num_experts, moe.expert_ffn_hidden_size
    ours, theirs = f"{at[0]}.experts.experts", f"{at[1]}.experts"
    for e in range(experts):
        expert = slice(e, e + 1)
        for i in range(2):
            turn = slice(i, None, 2)
            mapping.block(
                f"{ours}.linear_fc1.weight",
                (experts, 2 * inner, hidden),
                f"{theirs}.gate_up_proj",
                (experts, hidden, 2 * inner),
                (e, i * inner, 0),
                (1, inner, hidden),
                (expert, slice(None), turn),
                transposed=True,
            )
            mapping.block(
                f"{ours}.linear_fc1.bias",
                (experts, 2 * inner),
                f"{theirs}.gate_up_proj_bias",
                (experts, 2 * inner),
                (e, i * inner),
                (1, inner),
                (expert, turn),
            )
        mapping.block(
            f"{ours}.linear_fc2.weight",
            (experts, hidden, inner),
            f"{theirs}.down_proj",
            (experts, inner, hidden),
            (e, 0, 0),
            (1, hidden, inner),
            (expert, slice(None), slice(None)),
            transposed=True,
        )
    mapping.same(f"{ours}.linear_fc2.bias", f"{theirs}.down_proj_bias", experts, hidden)


def _prediction_layer(mapping: TensorMap, model: ModelConfig, names: Names, index: int) -> None:
    """DeepSeek-V3 keeps prediction layers behind the last layer (README_WEIGHTS.md)."""
    hidden = model.hidden_size
    ours, theirs = f"mtp.layers.{index}", f"model.layers.{model.num_layers + index}"
    for name in ("enorm", "hnorm"):
        mapping.same(f"{ours}.{name}.weight", f"{theirs}.{name}.weight", hidden)
    mapping.same(f"{ours}.eh_proj.weight", f"{theirs}.eh_proj.weight", hidden, 2 * hidden)
    layer = (f"{ours}.transformer_layer", theirs)
    _layer(mapping, model, names, layer, sparse=model.sparse_layers[-1])
    norm = f"{theirs}.shared_head.norm.weight"
    mapping.same(f"{ours}.final_layernorm.weight", norm, hidden)
    mapping.copies[f"{theirs}.embed_tokens.weight"] = "model.embed_tokens.weight"
    head = "model.embed_tokens.weight" if model.tie_embeddings else "lm_head.weight"
    mapping.copies[f"{theirs}.shared_head.head.weight"] = head
