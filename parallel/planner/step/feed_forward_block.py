"""Seconds of one layer's feed-forward network with its norm and residual sum.

Of one micro-batch on one rank. Routed experts after megatron-core's `moe_layer.py` and
`token_dispatcher.py`: route, permute, exchange, two grouped products, exchange back, unpermute.
"""

from parallel.planner.step.attention_block import NORM_BYTES, RESIDUAL_BYTES
from parallel.planner.step.clock import Clock
from parallel.planner.step.experts import add_experts
from parallel.planner.step.linear import add_column_parallel, add_product, add_row_parallel
from parallel.planner.step.seconds import Parts, TermSeconds
from parallel.planner.workload import Workload

GATED_NUMBERS = 3, 5
"""Numbers of traffic for each number of a gated product: forward reads two and writes one;
backward reads three and writes two."""
PLAIN_NUMBERS = 2, 3
"""The same without a gate."""
ROUTER_BYTES = 40, 60
"""Bytes of traffic for each token and expert: FP32 logits, scores, choice, probabilities and their
map, each written and read by a kernel of its own (`moe_utils.py`)."""


def dense_block(clock: Clock, work: Workload) -> Parts:
    """Return the seconds of a dense layer's network."""
    parts = _around(clock, work)
    _network(clock, work, parts["mlp"], work.shape.ffn_hidden_size // work.layout.tp)
    return parts


def sparse_block(clock: Clock, work: Workload) -> Parts:
    """Return the seconds of router, shared experts, exchange and routed experts."""
    shape, parts = work.shape, _around(clock, work)
    tokens = work.residual_tokens
    router = parts["moe_router"]
    add_product(router, clock, tokens, shape.num_experts, shape.hidden_size, precision="fp32")
    router.add("memory_bound", *clock.traffic(tokens * shape.num_experts, ROUTER_BYTES))
    if shape.shared_expert_ffn_hidden_size:
        inner = shape.shared_expert_ffn_hidden_size // work.layout.tp
        _network(clock, work, parts["shared_experts"], inner)
    add_experts(parts["experts"], clock, work)
    return parts


def _around(clock: Clock, work: Workload) -> Parts:
    parts = Parts()
    hidden = work.residual_tokens * work.shape.hidden_size
    parts["layernorm"].add("memory_bound", *clock.traffic(hidden, NORM_BYTES))
    parts["residual"].add("memory_bound", *clock.traffic(hidden, RESIDUAL_BYTES))
    return parts


def _network(clock: Clock, work: Workload, seconds: TermSeconds, inner: int) -> None:
    """Add the two products and the activation between them; `inner` is a rank's share."""
    shape = work.shape
    add_column_parallel(seconds, clock, work, (1 + shape.is_gated) * inner, shape.hidden_size)
    seconds.add("memory_bound", *_activation(clock, work, work.tokens * inner))
    add_row_parallel(seconds, clock, work, shape.hidden_size, inner)


def _activation(clock: Clock, work: Workload, numbers: int) -> tuple[float, float]:
    forward, backward = GATED_NUMBERS if work.shape.is_gated else PLAIN_NUMBERS
    width = work.precision.element_bytes
    return clock.traffic(numbers, (width * forward, width * backward))
