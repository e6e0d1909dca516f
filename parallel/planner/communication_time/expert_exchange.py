"""Seconds in which tokens reach the ranks of their experts (dispatch) and return (combine).

With top_k copies of each token (`alltoall`) or all tokens to all ranks (`allgather`) NCCL's
collectives do it; where ranks share an expert, each of them then gathers what the others received
(megatron-core's `token_dispatcher.py`). DeepEP and HybridEP send a token once to each domain over
the network and once to each rank inside it; the slowest of three decides: the SMs that copy, the
domain's links, the network. Sizes are those of one rank and one micro-batch.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from parallel.errors import ParallelError
from parallel.hardware.links import ExchangeParameters, Links
from parallel.planner.communication_time.collectives import (
    all_gather_seconds,
    all_to_all_seconds,
    reduce_scatter_seconds,
)
from parallel.planner.communication_time.routing_spread import expected_bins
from parallel.planner.communication_time.transfer import domain_rate, network_rate

Dispatcher = Literal["alltoall", "allgather", "deepep", "hybridep"]

DEEPEP_SMS, HYBRIDEP_SMS = 20, 16
"""megatron-core's defaults (`moe_deepep_num_sms`, `moe_hybridep_num_sms`, 0.16.1)."""
SCALE_BYTES = 4.0 / 128.0
"""FP8: one FP32 scale for 128 numbers (DeepEP)."""
ROUTE_BYTES = 12
"""Index (8) and weight (4) of one choice, sent along."""
HYBRID_EFFICIENCY = 0.93
"""Share of the link's rate that HybridEP reaches inside a node: 408 and 432 GB/s of 450 on H100
(arXiv:2603.07685 table 7). Its copies are left to the TMA, so that SMs do not limit it."""
HYBRID_NETWORK = 0.9
"""HybridEP's rate over the network, over DeepEP's (37 to 42 GB/s of 50 in the same table)."""


@dataclass(frozen=True, kw_only=True)
class ExchangeSizes:
    """What is exchanged."""

    tokens: int
    """Tokens of one rank."""
    hidden: int
    top_k: int
    experts: int
    ranks: int
    """Ranks among which the experts lie."""
    ranks_per_domain: int
    """Of these, those in one NVLink domain."""
    expert_tp: int = 1
    """Ranks that share each expert, side by side in a domain: all of them get its tokens."""
    dispatch_fp8: bool = False
    """Whether tokens leave in FP8; they return in BF16."""
    groups: int = 1
    groups_per_token: int = 1
    """Group-limited routing, as in `expected_bins`."""
    imbalance: float = 1.0
    """Tokens that the busiest rank receives over the mean; all wait for it."""
    sms: int | None = None
    """SMs that the kernels take; None: the dispatcher's default."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """Seconds and resources of one exchange there and back."""

    dispatch_seconds: float
    combine_seconds: float
    sms: int
    """SMs that it takes from what runs beside it."""
    limit: str
    """What decides the dispatch: sms, links, network or collective."""

    @property
    def seconds(self) -> float:
        """Both ways of a forward pass; backward they are as long, in the other order."""
        return self.dispatch_seconds + self.combine_seconds


def exchange_seconds(links: Links, sizes: ExchangeSizes, dispatcher: Dispatcher) -> Exchange:
    """Return the seconds of one exchange."""
    if sizes.imbalance < 1:
        raise ParallelError(f"imbalance {sizes.imbalance}: busiest over mean is at least 1")
    if sizes.ranks * sizes.expert_tp == 1:
        return Exchange(dispatch_seconds=0.0, combine_seconds=0.0, sms=0, limit="collective")
    if dispatcher in ("alltoall", "allgather"):
        return _by_collective(links, sizes, dispatcher == "allgather")
    if dispatcher == "hybridep":
        sms = sizes.sms or HYBRIDEP_SMS
        there, limit = _hybrid_seconds(links, sizes, _wire_bytes(sizes, sizes.dispatch_fp8))
        back, _ = _hybrid_seconds(links, sizes, _wire_bytes(sizes, False))
        return Exchange(dispatch_seconds=there, combine_seconds=back, sms=sms, limit=limit)
    if links.exchanges is None:
        raise ParallelError(
            "dispatcher 'deepep': not measured on this card and no relative is known; choose "
            "alltoall or allgather"
        )
    sized = replace(sizes, sms=sizes.sms or DEEPEP_SMS)
    there, limit = _deepep_seconds(links, links.exchanges.dispatch, sized, sized.dispatch_fp8)
    back, _ = _deepep_seconds(links, links.exchanges.combine, sized, False)
    return Exchange(
        dispatch_seconds=there, combine_seconds=back, sms=sized.sms or DEEPEP_SMS, limit=limit
    )


def _wire_bytes(sizes: ExchangeSizes, fp8: bool) -> float:
    """Return the bytes of one token on a link."""
    width = 1.0 + SCALE_BYTES if fp8 else 2.0
    return sizes.hidden * width + ROUTE_BYTES * sizes.top_k


def _by_collective(links: Links, sizes: ExchangeSizes, gathers: bool) -> Exchange:
    where, tp = (sizes.ranks, sizes.ranks_per_domain), sizes.expert_tp
    row = 2.0 * sizes.hidden
    if gathers:
        num_bytes = row * sizes.tokens * sizes.ranks * tp
        everywhere = sizes.ranks * tp, sizes.ranks_per_domain * tp
        there = all_gather_seconds(links, num_bytes, *everywhere)
        back = reduce_scatter_seconds(links, num_bytes, *everywhere)
    else:
        width = sizes.hidden * (1.0 + SCALE_BYTES if sizes.dispatch_fp8 else 2.0)
        copies = sizes.tokens * sizes.top_k * sizes.imbalance
        # Before the tokens, each rank tells how many it sends to each expert.
        counts = all_gather_seconds(links, 8.0 * sizes.experts * sizes.ranks, *where)
        there = counts + all_to_all_seconds(links, copies * width, *where)
        there += all_gather_seconds(links, copies * width * tp, tp, tp)
        back = reduce_scatter_seconds(links, copies * row * tp, tp, tp)
        back += all_to_all_seconds(links, copies * row, *where)
    return Exchange(
        dispatch_seconds=there,
        combine_seconds=back,
        sms=links.collective_sms,
        limit="collective",
    )


def _copies(sizes: ExchangeSizes) -> tuple[float, float, float]:
    """Return copies of a token to ranks, to other domains, and to other ranks of a domain.

    Counted at the receiver: each rank of a domain gets what comes from its own and from others.
    """
    route = sizes.experts, sizes.top_k, sizes.groups, sizes.groups_per_token
    ranks = expected_bins(sizes.ranks, *route) * sizes.imbalance * sizes.expert_tp
    domains = ceil(sizes.ranks / sizes.ranks_per_domain)
    inside = min(sizes.ranks, sizes.ranks_per_domain) * sizes.expert_tp
    beside = ranks * (1 - 1 / inside)
    if domains == 1:
        return ranks, 0.0, beside
    return ranks, expected_bins(domains, *route) * sizes.imbalance * (1 - 1 / domains), beside


def _link_and_network(
    links: Links, sizes: ExchangeSizes, row: float, efficiency: float
) -> dict[str, float]:
    """Return the seconds of links and network by name."""
    _, remote, beside = _copies(sizes)
    seconds = {"links": sizes.tokens * beside * row / (efficiency * domain_rate(links))}
    if remote:
        domains = ceil(sizes.ranks / sizes.ranks_per_domain)
        seconds["network"] = (
            sizes.tokens * remote * row / network_rate(links, domains, one_sided=True)
        )
    return seconds


def _hybrid_seconds(links: Links, sizes: ExchangeSizes, row: float) -> tuple[float, str]:
    seconds = _link_and_network(links, sizes, row, HYBRID_EFFICIENCY)
    if "network" in seconds:
        seconds["network"] /= HYBRID_NETWORK
    slowest = max(seconds, key=lambda name: seconds[name])
    latency = links.network.latency_seconds if "network" in seconds else 0.0
    launch = links.collectives.all_to_all.launch_seconds if links.collectives else 0.0
    return launch + latency + seconds[slowest], slowest


def _deepep_seconds(
    links: Links, kind: ExchangeParameters, sizes: ExchangeSizes, fp8: bool
) -> tuple[float, str]:
    row = _wire_bytes(sizes, fp8)
    ranks, remote, _ = _copies(sizes)
    domains = ceil(sizes.ranks / sizes.ranks_per_domain)
    per_token = kind.token_seconds + ranks * (kind.copy_seconds + row * kind.byte_seconds)
    if domains > 1:
        reached = remote * domains / (domains - 1)
        per_token += reached * row * kind.node_byte_seconds
    seconds = _link_and_network(links, sizes, row, kind.efficiency)
    seconds["sms"] = sizes.tokens * per_token / (sizes.sms or DEEPEP_SMS)
    slowest = max(seconds, key=lambda name: seconds[name])
    latency = links.network.latency_seconds if domains > 1 else 0.0
    return kind.launch_seconds + latency + seconds[slowest], slowest
