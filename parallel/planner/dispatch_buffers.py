"""Buffers that token dispatchers hold outside PyTorch's allocator for a whole run.

`alltoall` and `allgather` hold none: what they send and receive are tensors (`activations.py`).
DeepEP sizes its buffers by hidden size and ranks (`Config` in deepseek-ai/DeepEP's
`csrc/config.hpp`, `get_dispatch_config` in `deep_ep/buffer.py`); HybridEP by the worst routing, in
which every token of every rank comes to this one (`allocate_buffer_for_dispatch` in its
`hybrid_ep.cu`). Imbalance therefore changes neither; it is in the tensors.
"""

from bisect import bisect_left

from parallel.planner.workload import Workload

RANKS_PER_NODE = 8
"""Ranks that reach each other over NVLink, as DeepEP assumes."""
_CHANNELS = 10
"""Two of 20 SMs each, DeepEP's and megatron-core's default."""
_NVLINK_TOKENS = ((8, 256), (64, 288), (96, 480), (128, 560), (160, 720))
"""Up to how many ranks, tokens of a channel's receive buffer from each rank of the node."""
_RDMA_TOKENS = 128
"""The same from each other node."""
_TOKEN_BYTES = 8 + 128 * 8 + 128 * 4 + 128 * 4
"""Beside the hidden state: where it comes from, 128 expert numbers, weights and scales."""
_WORKSPACE_BYTES = 32 * 2**20
PROBABILITY_BYTES = 4


def dispatch_buffer_bytes(work: Workload) -> int:
    """Return the bytes that a rank's dispatcher holds."""
    layout = work.layout
    ranks = layout.ep * layout.expert_tp
    if layout.dispatcher != "flex" or ranks == 1:
        return 0
    if layout.flex_backend == "deepep":
        return _deepep_bytes(2 * work.shape.hidden_size, ranks)
    return _hybridep_bytes(work, ranks)


def _deepep_bytes(hidden_bytes: int, ranks: int) -> int:
    limits = [limit for limit, _ in _NVLINK_TOKENS]
    nvlink_tokens = _NVLINK_TOKENS[min(bisect_left(limits, ranks), len(limits) - 1)][1]
    token = hidden_bytes + _TOKEN_BYTES
    in_node = _CHANNELS * min(ranks, RANKS_PER_NODE) * nvlink_tokens * token
    if ranks <= RANKS_PER_NODE:
        return _WORKSPACE_BYTES + in_node
    between = 2 * _CHANNELS * (ranks // RANKS_PER_NODE) * _RDMA_TOKENS * token
    return _WORKSPACE_BYTES + in_node + between


def _hybridep_bytes(work: Workload, ranks: int) -> int:
    """Return the receive buffer of dispatch; between nodes combine has another of its size."""
    experts = work.shape.num_experts // work.layout.ep * min(ranks, RANKS_PER_NODE)
    received = work.residual_tokens * ranks
    token = 2 * work.shape.hidden_size + PROBABILITY_BYTES * experts
    return received * token * (2 if ranks > RANKS_PER_NODE else 1)
