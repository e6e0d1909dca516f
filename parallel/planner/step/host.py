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
DENSE_LAUNCHES = 10
ROUTER_LAUNCHES = 30
"""Linear layer, scores, top-k, maps, losses, each element-wise step a kernel (`moe_utils.py`)."""
EXPERT_LAUNCHES = 40
"""Permutations, exchanges of counts and of tokens, activation."""
PER_EXPERT_LAUNCHES = 1
"""Both products of one local expert, started by one loop in C++."""
COLLECTIVE_LAUNCHES = 30
"""Four tensor-parallel collectives, with what hands them their buffers."""
BACKWARD_SHARE = 1.4
"""Backward launches over forward ones: twice the kernels, but autograd's C++ starts them."""


def host_floor(work: Workload, launch_seconds: float, *, sparse: bool) -> tuple[float, float]:
    """Return the host's seconds of one layer's forward and backward pass."""
    graphs, layout, shape = work.execution.cuda_graphs, work.layout, work.shape
    launches = 0
    if "attn" not in graphs:
        launches += ATTENTION_LAUNCHES + LATENT_LAUNCHES * (shape.kv_lora_rank > 0)
        launches += COLLECTIVE_LAUNCHES * (layout.tp > 1)
    if sparse:
        launches += 0 if "moe_router" in graphs else ROUTER_LAUNCHES
        launches += EXPERT_LAUNCHES + PER_EXPERT_LAUNCHES * shape.num_experts // layout.ep
    elif "mlp" not in graphs:
        launches += DENSE_LAUNCHES
    forward = launches * launch_seconds
    again = forward if layout.recompute == "full" else 0.0
    return forward, BACKWARD_SHARE * forward + again
