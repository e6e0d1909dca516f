"""Seconds in which the host launches a layer's kernels: a floor under the card's own time.

Python, autograd and the launch itself cost some microseconds a kernel; where a layer's kernels are
shorter, the card waits. What a CUDA graph replays costs nothing here.
"""

from parallel.planner.workload import Workload

ATTENTION_LAUNCHES = 22
"""Kernels of a forward pass: norm, projections, rotary embedding, attention, residual sum, and
what gathers and scatters them."""
LATENT_LAUNCHES = 12
"""More of latent attention: projections down, norms of latents, joining of heads' parts."""
NETWORK_LAUNCHES = 10
"""Of a dense network, and of shared experts."""
ROUTER_LAUNCHES = 30
"""Linear layer, scores, top-k, maps, losses, each element-wise step a kernel (`moe_utils.py`)."""
EXCHANGE_LAUNCHES = {"allgather": 30, "alltoall": 40, "deepep": 25, "hybridep": 15}
"""Permutations, exchanges of counts and of tokens, activation (`token_dispatcher.py`): an
all-to-all counts, sorts and copies in kernels of their own, DeepEP permutes in one more, HybridEP
in its exchange."""
PER_EXPERT_LAUNCHES = 1
"""Both products of one local expert, started by one loop in C++."""
COLLECTIVE_LAUNCHES = 16
"""Two tensor-parallel collectives of attention or of a network, with what hands them their
buffers."""
BACKWARD_SHARE = 1.4
"""Backward launches over forward ones: twice the kernels, but autograd's C++ starts them."""


def host_floor(work: Workload, launch_seconds: float, *, sparse: bool) -> tuple[float, float]:
    """Return the host's seconds of one layer's forward and backward pass."""
    graphs, layout, shape = work.execution.cuda_graphs, work.layout, work.shape
    gathered = COLLECTIVE_LAUNCHES * (layout.tp > 1)
    launches = 0
    if "attn" not in graphs:
        launches += ATTENTION_LAUNCHES + LATENT_LAUNCHES * (shape.kv_lora_rank > 0) + gathered
    if sparse:
        launches += 0 if "moe_router" in graphs else ROUTER_LAUNCHES
        launches += EXCHANGE_LAUNCHES[layout.exchange_library]
        launches += PER_EXPERT_LAUNCHES * shape.num_experts // layout.ep
        if shape.shared_expert_ffn_hidden_size and "moe_router" not in graphs:
            launches += NETWORK_LAUNCHES + gathered
    elif "mlp" not in graphs:
        launches += NETWORK_LAUNCHES + gathered
    forward = launches * launch_seconds
    again = forward if layout.recompute == "full" else 0.0
    return forward, BACKWARD_SHARE * forward + again
