"""Seconds of one Transformer layer, with what recomputation repeats and what the host adds."""

from collections.abc import Callable, Hashable
from typing import NamedTuple

from parallel.planner.step.attention_block import attention_block
from parallel.planner.step.clock import Clock
from parallel.planner.step.experts import add_exchange
from parallel.planner.step.feed_forward_block import dense_block, sparse_block
from parallel.planner.step.host import both_passes, forward_kernels
from parallel.planner.step.seconds import Parts, TermSeconds
from parallel.planner.workload import Workload

RECOMPUTED_ATTENTION = ("layernorm", "core_attn", "mla_up_proj")
RECOMPUTED_NETWORK = ("layernorm", "moe_act", "shared_experts")
"""Parts that megatron-core recomputes by name (`recompute_modules`), beside whole networks."""


class _Block(NamedTuple):
    """Half a layer, timed."""

    parts: Parts
    total: TermSeconds
    """Of all parts."""


class LayerTimes:
    """Seconds of layers on one kind of card; blocks that jobs share are timed once.

    A search asks for thousands of layouts, which differ in what a block does not see. One instance
    serves one model, sequence length, precision and way to run.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._blocks: dict[Hashable, _Block] = {}

    def seconds(
        self, work: Workload, *, sparse: bool, window: int | None, exchanges: bool = True
    ) -> TermSeconds:
        """Return the seconds of one layer for one micro-batch on one rank.

        Args:
            work: The job.
            sparse: Whether the layer has routed experts.
            window: Tokens that a position sees; None for all before it.
            exchanges: Whether tokens take time to reach their experts' ranks.
        """
        attention, network = self._attention(work, window), self._network(work, sparse)
        total = TermSeconds()
        total.add_all(attention.total)
        total.add_all(network.total)
        if sparse and exchanges:
            add_exchange(total, self._clock, work, attention.total)
        total.add(
            "recomputation", 0.0, _recomputed(work, attention.parts, network.parts, sparse=sparse)
        )
        kernels = forward_kernels(work, sparse=sparse)
        parameters, full = self._clock.parameters, work.layout.recompute == "full"
        gaps = parameters.gap_seconds * kernels.all
        total.add("memory_bound", *both_passes(gaps, recomputed=full))
        launching = parameters.launch_seconds * kernels.launched
        forward, backward = both_passes(launching, recomputed=full)
        total.add(
            "host",
            max(0.0, forward - total.forward_seconds),
            max(0.0, backward - total.backward_seconds),
        )
        return total

    def _attention(self, work: Workload, window: int | None) -> _Block:
        layout = work.layout
        key = ("attention", window, layout.tp, layout.cp, work.batch.micro_batch_size)
        return self._block(key, lambda: attention_block(self._clock, work, window))

    def _network(self, work: Workload, sparse: bool) -> _Block:
        layout, size = work.layout, work.batch.micro_batch_size
        key = (sparse, layout.tp, layout.cp, size, layout.ep, layout.expert_tp)
        block = sparse_block if sparse else dense_block
        return self._block(key, lambda: block(self._clock, work))

    def _block(self, key: Hashable, timed: Callable[[], Parts]) -> _Block:
        if key not in self._blocks:
            parts = timed()
            self._blocks[key] = _Block(parts, parts.total())
        return self._blocks[key]


def _recomputed(work: Workload, attention: Parts, network: Parts, *, sparse: bool) -> float:
    """Return the seconds of the forward pass that the backward pass repeats."""
    layout = work.layout
    if layout.recompute == "none":
        return 0.0
    if layout.recompute == "full":
        return attention.forward_seconds(attention) + network.forward_seconds(network)
    modules = layout.recompute_modules
    again = attention.forward_seconds(name for name in RECOMPUTED_ATTENTION if name in modules)
    if ("moe" if sparse else "mlp") in modules:
        return again + network.forward_seconds(network)
    return again + network.forward_seconds(name for name in RECOMPUTED_NETWORK if name in modules)
