"""What context parallelism adds to core attention: keys and values travel around a ring."""

from parallel.planner.communication_time.collectives import send_recv_seconds
from parallel.planner.step.clock import Clock
from parallel.planner.step.seconds import TermSeconds
from parallel.planner.workload import Workload


def add_context_exchange(seconds: TermSeconds, clock: Clock, work: Workload) -> None:
    """Add what a ring of `cp` ranks does not hide of its `cp - 1` transfers.

    Each transfer runs beside the attention of the part before (`p2p` of Transformer Engine);
    backward, keys and values travel with their gradients.
    """
    shape, layout = work.shape, work.layout
    if layout.cp == 1:
        return
    width = work.kv_heads * (shape.qk_head_dim + shape.v_head_dim)
    num_bytes = work.tokens * width * work.precision.element_bytes
    same_domain = layout.cp * layout.tp <= clock.links.domain_size
    transfer = send_recv_seconds(clock.links, num_bytes, same_domain=same_domain)
    beside = seconds.forward["attention"] / layout.cp, seconds.backward["attention"] / layout.cp
    steps = layout.cp - 1
    seconds.add(
        "context_parallel",
        steps * max(0.0, transfer - beside[0]),
        steps * max(0.0, 2 * transfer - beside[1]),
    )
