"""Shapes of the matrices that a rank multiplies with, for what their gradients take."""

from parallel.layout.model_shape import ModelShape
from parallel.planner.workload import Workload

Shape = tuple[int, int]


def layer_matrices(work: Workload, *, sparse: bool) -> set[Shape]:
    """Return the distinct matrices of one layer on one rank: output and input sizes.

    A gated network's two input projections are one matrix, as in megatron-core.
    """
    shape, layout = work.shape, work.layout
    tp, hidden = layout.tp, shape.hidden_size
    found = {(hidden, shape.num_heads * shape.v_head_dim // tp)} | _attention_inputs(work)
    if not sparse:
        return found | _network(shape, shape.ffn_hidden_size // tp)
    if shape.shared_expert_ffn_hidden_size:
        found |= _network(shape, shape.shared_expert_ffn_hidden_size // tp)
    inner = shape.expert_ffn_hidden_size // layout.expert_tp
    if work.precision.kernels == "te":
        return found | _network(shape, inner)
    # Experts' matrices are stacked into one tensor.
    local = shape.num_experts // layout.ep
    return found | {(local * inner * (1 + shape.is_gated), hidden), (local * hidden, inner)}


def stage_matrices(work: Workload, stage: int) -> set[Shape]:
    """Return the distinct matrices of all layers of a stage."""
    kinds = {kind.sparse for chunk in work.layer_kinds[stage] for kind in chunk}
    return set().union(*(layer_matrices(work, sparse=sparse) for sparse in kinds))


def head_matrix(work: Workload) -> Shape:
    """Return the LM head's matrix on one rank."""
    return work.shape.vocab_size // work.layout.tp, work.shape.hidden_size


def elements(matrix: Shape) -> int:
    """Return the number of a matrix's elements."""
    return matrix[0] * matrix[1]


def _network(shape: ModelShape, inner: int) -> set[Shape]:
    hidden = shape.hidden_size
    return {((1 + shape.is_gated) * inner, hidden), (hidden, inner)}


def _attention_inputs(work: Workload) -> set[Shape]:
    shape, tp = work.shape, work.layout.tp
    queries = shape.num_heads * shape.qk_head_dim // tp
    if not shape.kv_lora_rank:
        keys_and_values = shape.num_kv_heads * (shape.qk_head_dim + shape.v_head_dim) // tp
        return {(queries + keys_and_values, shape.hidden_size)}
    up = shape.qk_head_dim - shape.qk_rope_head_dim + shape.v_head_dim
    found = {
        (shape.kv_lora_rank + shape.qk_rope_head_dim, shape.hidden_size),
        (shape.num_heads * up // tp, shape.kv_lora_rank),
        (queries, shape.q_lora_rank or shape.hidden_size),
    }
    if shape.q_lora_rank:
        found.add((shape.q_lora_rank, shape.hidden_size))
    return found
