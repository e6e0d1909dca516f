"""Seconds of NCCL's collectives by size, ranks and topology.

`num_bytes` is the size that nccl-tests prints: of all_gather the gathered result, of
reduce_scatter, all_reduce and all_to_all the whole input of one rank, of send_recv the message.
Inside a domain (n ranks) a rank sends num_bytes (n - 1) / n, of all_reduce twice that; dividing
this by the seconds gives nccl-tests' bus bandwidth (nccl-tests, doc/PERFORMANCE.md).

Between domains, rings pass through each domain once, spread over the adapters of its ranks; the
pieces are pipelined, so that the slower of link and network decides and one hop for each further
rank or domain is added. All-reduce takes trees where their hops cost less.
"""

from math import ceil, log2

from parallel.errors import ParallelError
from parallel.hardware.links import Collectives, Links
from parallel.planner.communication_time.transfer import (
    domain_rate,
    domain_seconds,
    filled_seconds,
    network_rate,
)


def all_gather_seconds(links: Links, num_bytes: float, ranks: int, ranks_per_domain: int) -> float:
    """Return the seconds of an all-gather whose result has `num_bytes`."""
    return _ring_seconds(links, num_bytes, ranks, ranks_per_domain)


def reduce_scatter_seconds(
    links: Links, num_bytes: float, ranks: int, ranks_per_domain: int
) -> float:
    """Return the seconds of a reduce-scatter of `num_bytes` on each rank."""
    return _ring_seconds(links, num_bytes, ranks, ranks_per_domain)


def all_reduce_seconds(links: Links, num_bytes: float, ranks: int, ranks_per_domain: int) -> float:
    """Return the seconds of an all-reduce of `num_bytes` on each rank."""
    inside, domains = _placed(num_bytes, ranks, ranks_per_domain)
    if ranks == 1:
        return 0.0
    kinds = _collectives(links)
    sent, own = 2.0 * num_bytes * (ranks - 1) / ranks, num_bytes / ranks
    if domains == 1:
        in_switch = links.switch_reduces and ranks >= links.node_size
        kind = kinds.switch_reduce if in_switch and kinds.switch_reduce else kinds.all_reduce
        return domain_seconds(links, kind, sent, own, ranks)
    hop = links.network.latency_seconds
    ring_hops = 2 * (domains - 1)
    tree_hops = 2 * ceil(log2(domains))
    return _between(links, sent, inside, domains, hop * min(ring_hops, tree_hops))


def all_to_all_seconds(links: Links, num_bytes: float, ranks: int, ranks_per_domain: int) -> float:
    """Return the seconds of an all-to-all; each rank has `num_bytes`, equally much for each rank.

    Transfers to the own domain and over the network run beside each other.
    """
    inside, domains = _placed(num_bytes, ranks, ranks_per_domain)
    if ranks == 1:
        return 0.0
    kind = _collectives(links).all_to_all
    own = num_bytes / ranks
    within = domain_seconds(links, kind, own * (inside - 1), own, inside)
    if domains == 1:
        return within
    remote = own * (ranks - inside) / network_rate(links, domains)
    hop = links.network.latency_seconds + kind.launch_seconds
    return max(within, hop + filled_seconds(remote, kind.fill_seconds))


def send_recv_seconds(links: Links, num_bytes: float, *, same_domain: bool) -> float:
    """Return the seconds of a message to one other rank."""
    _placed(num_bytes, 2, 2)
    kind = _collectives(links).all_to_all
    if same_domain:
        return domain_seconds(links, kind, num_bytes, 0.0, 2)
    latency = links.network.latency_seconds + kind.launch_seconds
    return latency + filled_seconds(num_bytes / network_rate(links, 2), kind.fill_seconds)


def _ring_seconds(links: Links, num_bytes: float, ranks: int, ranks_per_domain: int) -> float:
    inside, domains = _placed(num_bytes, ranks, ranks_per_domain)
    if ranks == 1:
        return 0.0
    sent, own = num_bytes * (ranks - 1) / ranks, num_bytes / ranks
    if domains == 1:
        return domain_seconds(links, _collectives(links).gather, sent, own, ranks)
    return _between(links, sent, inside, domains, links.network.latency_seconds * (domains - 1))


def _between(links: Links, sent: float, inside: int, domains: int, hops: float) -> float:
    """Return the seconds of a pipelined collective over domains; `hops` are those between them."""
    kind = _collectives(links).gather
    # A domain sends what one rank would, shared among its ranks' adapters.
    transfer = sent / (min(inside, links.rails) * network_rate(links, domains))
    if inside > 1:
        transfer = max(transfer, sent / (kind.efficiency * domain_rate(links)))
    latency = kind.launch_seconds + kind.rank_seconds * (inside - 1) + hops
    return latency + filled_seconds(transfer, kind.fill_seconds)


def _collectives(links: Links) -> Collectives:
    if links.collectives is None:
        raise ParallelError(
            "links.collectives: not measured on this card and no relative is known; give the "
            "section in the card's TOML file"
        )
    return links.collectives


def _placed(num_bytes: float, ranks: int, ranks_per_domain: int) -> tuple[int, int]:
    """Return the ranks of a domain that take part, and the domains."""
    if num_bytes < 0:
        raise ParallelError(f"num_bytes {num_bytes}: negative; give bytes as nccl-tests counts")
    if ranks < 1 or ranks_per_domain < 1:
        raise ParallelError(f"ranks {ranks}, ranks_per_domain {ranks_per_domain}: at least 1")
    inside = min(ranks, ranks_per_domain)
    return inside, ceil(ranks / inside)
