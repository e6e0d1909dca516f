"""Seconds in which the host launches a layer's kernels: a floor under the card's own time.

Python, autograd and the launch itself cost some microseconds a kernel; where a layer's kernels are
shorter, the card waits. What a CUDA graph replays costs nothing here.
"""

from parallel.planner.workload import Workload

ATTENTION_LAUNCHES = 22
"""Kernels of a forward pass: norm, projections, rotary embedding, attention, residual sum, and
what gathers and scatters them."""
DENSE_LAUNCHES = 10
ROUTER_LAUNCHES = 30
"""Linear layer, scores, top-k, maps, losses, each element-wise step a kernel (`moe_utils.py`)."""
EXPERT_LAUNCHES = 40
"""Permutations, exchanges of counts and of tokens, grouped products, activation."""
BACKWARD_SHARE = 1.4
"""Backward launches over forward ones: twice the kernels, but autograd's C++ starts them."""


LAUNCH_SECONDS = 7e-6
"""Seconds of the host for one kernel: Python, autograd and launch."""


def host_floor(work: Workload, *, sparse: bool) -> tuple[float, float]:
    """Return the host's seconds of one layer's forward and backward pass."""
    graphs = work.execution.cuda_graphs
    launches = 0 if "attn" in graphs else ATTENTION_LAUNCHES
    if sparse:
        launches += 0 if "moe_router" in graphs else ROUTER_LAUNCHES
        launches += EXPERT_LAUNCHES
    elif "mlp" not in graphs:
        launches += DENSE_LAUNCHES
    forward = launches * LAUNCH_SECONDS
    return forward, BACKWARD_SHARE * forward
