"""What a layer's many kernels cost: the host that launches them, the card that starts and drains.

Python, autograd and the launch itself cost some microseconds a kernel; where a layer's kernels are
shorter, the card waits. What a CUDA graph replays costs nothing here.
"""

from typing import NamedTuple

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
EXCHANGE_LAUNCHES = {"allgather": 30, "alltoall": 40, "deepep": 40, "hybridep": 15}
"""Permutations, exchanges of counts and of tokens, activation (`token_dispatcher.py`). With
all-to-all and DeepEP, which waits for the counts of tokens, counting and sorting are kernels of
their own; HybridEP permutes in its exchange."""
PER_EXPERT_LAUNCHES = 1
"""Both products of one local expert, started by one loop in C++."""
COLLECTIVE_LAUNCHES = 16
"""Two tensor-parallel collectives of attention or of a network, with what hands them their
buffers."""
BACKWARD_SHARE = 1.4
"""Backward launches over forward ones: twice the kernels, but autograd's C++ starts them."""


class Kernels(NamedTuple):
    """Kernels of one layer's forward pass."""

    all: int
    launched: int
    """Those that the host launches one by one, not from a CUDA graph."""


def forward_kernels(work: Workload, *, sparse: bool) -> Kernels:
    """Return how many kernels a layer's forward pass has."""
    graphs, layout, shape = work.execution.cuda_graphs, work.layout, work.shape
    gathered = COLLECTIVE_LAUNCHES if layout.tp > 1 else 0
    network, experts = NETWORK_LAUNCHES + gathered, 0
    if sparse:
        network = ROUTER_LAUNCHES + (network if shape.shared_expert_ffn_hidden_size else 0)
        experts = PER_EXPERT_LAUNCHES * shape.num_experts // layout.ep
        experts += EXCHANGE_LAUNCHES[layout.exchange_library]
    attention = ATTENTION_LAUNCHES + gathered
    if shape.kv_lora_rank:
        attention += LATENT_LAUNCHES
    total = attention + network + experts
    if not graphs:
        return Kernels(total, total)
    replayed = attention if "attn" in graphs else 0
    replayed += network if ("moe_router" if sparse else "mlp") in graphs else 0
    return Kernels(total, total - replayed)


def both_passes(forward: float, *, recomputed: bool) -> tuple[float, float]:
    """Return a forward pass's seconds of kernels beside the backward pass's."""
    return forward, BACKWARD_SHARE * forward + (forward if recomputed else 0.0)
