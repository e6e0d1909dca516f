"""Latency and rate of a card's links, from records of `moe bench collectives`.

Two numbers for each kind of collective inside a domain, and two for the network between domains:
the factor of all its waits and that of the seconds of a byte. They are found together, by least
absolute errors of ln(modelled / measured), so that one absurd point does not count.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from statistics import median

import numpy as np

from parallel.hardware.card import Card
from parallel.hardware.links import Links
from parallel.planner.calibration.least_squares import Vector, fit_least_squares
from parallel.planner.calibration.links import with_section
from parallel.planner.calibration.records.bench_records import BenchRecord
from parallel.planner.calibration.records.bench_schema import CollectiveCase, CollectiveResult
from parallel.planner.calibration.records.kinds import KindCalibration, median_error
from parallel.planner.calibration.records.unused import UnusedError
from parallel.planner.communication_time import collectives

NETWORK = "network"
"""The kind of points over several domains."""
SECONDS = {
    "all_gather": collectives.all_gather_seconds,
    "reduce_scatter": collectives.reduce_scatter_seconds,
    "all_reduce": collectives.all_reduce_seconds,
    "all_to_all": collectives.all_to_all_seconds,
}
_PULL = 0.01
"""Weight of a factor's distance from 1, as ln: decides only what no point tells."""
_ABSOLUTE = 0.02
"""Size of an error from which on it pulls linearly: above it, a median."""


@dataclass(frozen=True, kw_only=True)
class LinkPoint:
    """One measured collective."""

    kind: str
    """The section of `[links.collectives]` that decides its time, or `NETWORK`."""
    seconds: float
    predict: Callable[[Links], float]


def link_point(card: Card, record: BenchRecord) -> LinkPoint:
    """Return a record's point.

    Raises:
        UnusedError: The card's links are not known, or nodes hold unequal numbers of ranks.
    """
    case, result = record.read(CollectiveCase, "case"), record.read(CollectiveResult, "result")
    links = card.links
    if links is None or links.collectives is None or links.domain_bytes_per_s is None:
        raise UnusedError(f"collectives: {card.name}'s file has no [links.collectives] to scale")
    if case.ranks % case.nodes:
        raise UnusedError("collectives of nodes with unequal numbers of ranks")
    inside = case.ranks // case.nodes
    if case.nodes == 1:
        inside = case.ranks
    elif links.domain_size > links.node_size:
        inside = min(case.ranks, links.domain_size)
    several = inside < case.ranks
    if several and links.network_bytes_per_s is None:
        raise UnusedError(f"collectives between nodes: {card.name}'s network is not known")
    return LinkPoint(
        kind=NETWORK if several else _section(links, case),
        seconds=result.time_s.median,
        predict=lambda tried: SECONDS[case.operation](tried, float(case.bytes), case.ranks, inside),
    )


def _section(links: Links, case: CollectiveCase) -> str:
    """Return the section that a collective inside a domain depends on."""
    if case.operation != "all_reduce":
        return "all_to_all" if case.operation == "all_to_all" else "gather"
    in_switch = links.switch_reduces and case.ranks >= links.node_size
    has_section = links.collectives is not None and links.collectives.switch_reduce is not None
    return "switch_reduce" if in_switch and has_section else "all_reduce"


def calibrate_links(
    links: Links, points: Sequence[LinkPoint]
) -> tuple[Links, dict[str, KindCalibration]]:
    """Return the links as measured, and what was found of each kind; domains first."""
    by_kind = defaultdict[str, list[LinkPoint]](list)
    for point in points:
        by_kind[point.kind].append(point)
    found = {}
    for kind in sorted(by_kind, key=lambda name: (name == NETWORK, name)):
        links, calibration = _calibrate_kind(links, kind, by_kind[kind])
        found[kind if kind == NETWORK else f"collectives.{kind}"] = calibration
    return links, found


def _calibrate_kind(
    links: Links, kind: str, points: Sequence[LinkPoint]
) -> tuple[Links, KindCalibration]:
    def errors(tried: Links) -> Vector:
        ratios = [point.predict(tried) / point.seconds for point in points]
        return np.asarray(np.log(ratios), dtype=np.float64)

    def residuals(logs: Vector) -> Vector:
        return np.concatenate([errors(_scaled(links, kind, logs)), _PULL * logs])

    before = errors(links)
    start = np.full(2, -median(before.tolist()))
    fit = fit_least_squares(residuals, start, outlier=_ABSOLUTE)
    scaled = _scaled(links, kind, fit.parameters)
    latency, transfer = np.exp(fit.parameters).tolist()
    return scaled, KindCalibration(
        points=len(points),
        factor=exp(-median(before.tolist())),
        error_before=median_error(before.tolist()),
        error_after=median_error(errors(scaled).tolist()),
        latency_factor=latency,
        transfer_factor=transfer,
    )


def _scaled(links: Links, kind: str, logs: Vector) -> Links:
    """Return the links with waits and the seconds of a byte multiplied."""
    latency, transfer = np.exp(logs).tolist()
    if kind == NETWORK:
        assert links.network_bytes_per_s is not None
        changes = {
            "network_bytes_per_s": links.network_bytes_per_s / transfer,
            "hop_seconds": links.network.latency_seconds * latency,
        }
        return links.model_copy(update=changes)
    values = getattr(links.collectives, kind).model_dump()
    waits = ("launch_seconds", "rank_seconds", "fill_seconds")
    changes = {name: values[name] * latency for name in waits}
    changes["efficiency"] = values["efficiency"] / transfer
    return with_section(links, "collectives", kind, {**values, **changes})
