"""Seconds of bytes on a link, inside a domain and between domains."""

from math import exp, log, log2, sqrt

from parallel.errors import ParallelError
from parallel.hardware.links import CollectiveParameters, Links


def filled_seconds(transfer_seconds: float, fill_seconds: float) -> float:
    """Return the seconds of a transfer cut into pieces that pass one after another.

    With n pieces each of several hops waits for its first piece, T / n, and each piece costs c:
    T + hops T / n + n c is least at T + 2 sqrt(hops c T). `fill_seconds` is 4 hops c.
    """
    return transfer_seconds + sqrt(fill_seconds * transfer_seconds)


def domain_rate(links: Links) -> float:
    """Return the domain's rate, bytes/s a direction of one card."""
    if links.domain_bytes_per_s is None:
        raise ParallelError(
            "links.domain_bytes_per_s: unknown for this card; give it in the card's TOML file"
        )
    return links.domain_bytes_per_s


def network_rate(links: Links, domains: int, *, one_sided: bool = False) -> float:
    """Return bytes/s of one card's adapter to the other domains, a direction.

    Args:
        links: The card's links.
        domains: Domains that take part, at least two.
        one_sided: DeepEP's and HybridEP's own transfers, not NCCL's.
    """
    if links.network_bytes_per_s is None:
        raise ParallelError(
            "links.network_bytes_per_s: unknown for this card; give it in the card's TOML file"
        )
    fabric = links.network
    efficiency = fabric.one_sided_efficiency if one_sided else fabric.collective_efficiency
    kept = exp(log(1.0 - fabric.spread_loss) * log2(max(domains, 2) / 2))
    return links.network_bytes_per_s * efficiency * kept


def domain_seconds(
    links: Links, kind: CollectiveParameters, sent: float, own: float, ranks: int
) -> float:
    """Return the seconds of one collective inside a domain.

    Args:
        links: The card's links.
        kind: Parameters of the collective.
        sent: Bytes that one rank sends, as nccl-tests' bus bandwidth counts.
        own: Bytes of its own part, which it copies.
        ranks: Ranks that take part.
    """
    transfer = (sent + kind.local_copy * own) / (kind.efficiency * domain_rate(links))
    latency = kind.launch_seconds + kind.rank_seconds * (ranks - 1)
    return latency + filled_seconds(transfer, kind.fill_seconds)
