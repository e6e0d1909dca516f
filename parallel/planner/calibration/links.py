"""Link parameters fitted on nccl_one_node.csv and deepep_normal.csv.

`python -m parallel.planner.calibration.links TABLES` prints the sections of each card in TOML.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parallel.errors import ParallelError
from parallel.hardware.links import Collectives, Exchanges, Links
from parallel.planner.calibration.least_squares import Vector, fit_least_squares
from parallel.planner.calibration.samples import read_rows
from parallel.planner.communication_time import collectives
from parallel.planner.communication_time.expert_exchange import ExchangeSizes, exchange_seconds

Row = Mapping[str, str]
Seconds = Callable[[Links], float]

NODE_SIZES = {"h100": 8, "h200": 8, "b200": 8, "gb200": 4}
DOMAIN_RATES = {"h100": 4.5e11, "h200": 4.5e11, "b200": 9e11, "gb200": 9e11}
"""NVLink, bytes/s a direction of one card (data sheets)."""
NCCL_SIZES = ("op", "gpus", "bytes")
DEEPEP_SIZES = ("nodes", "ep", "hidden", "topk", "experts", "tokens_per_gpu", "sms")
"""Columns by which rows are held out (`samples.read_rows`): the same for every card."""
_PATHOLOGICAL_NODES = 8
"""Nodes from which on the table's transfers are mixed with waits of 8 ms (its README)."""
_GROUPS, _GROUPS_PER_TOKEN = 8, 4
"""DeepEP's test routes a token to at most four nodes; with up to four that is no limit."""
_OPS = {
    "all_gather": collectives.all_gather_seconds,
    "reduce_scatter": collectives.reduce_scatter_seconds,
    "all_reduce": collectives.all_reduce_seconds,
    "alltoall": collectives.all_to_all_seconds,
}
_COLLECTIVE_START = {
    "efficiency": 0.75,
    "launch_seconds": 6e-6,
    "rank_seconds": 8e-7,
    "fill_seconds": 1e-5,
    "local_copy": 0.3,
}
_EXCHANGE_START = {
    "launch_seconds": 1e-5,
    "token_seconds": 6e-7,
    "copy_seconds": 7e-8,
    "byte_seconds": 3e-11,
    "node_byte_seconds": 8e-11,
    "efficiency": 0.6,
}


@dataclass(frozen=True, kw_only=True)
class LinkSample:
    """One measured time."""

    group: str
    """Card and operation: what errors are told by."""
    kind: str
    """The section that its time depends on: `collectives.gather`."""
    seconds: float
    predict: Seconds
    several_domains: bool = False


def nccl_samples(rows: Iterable[Row]) -> list[LinkSample]:
    """Return the samples of nccl_one_node.csv."""
    return [_nccl_sample(row) for row in rows]


def _nccl_sample(row: Row) -> LinkSample:
    ranks, op = int(row["gpus"]), row["op"]
    kind = {"all_gather": "gather", "reduce_scatter": "gather", "alltoall": "all_to_all"}.get(op)
    if kind is None:
        kind = "switch_reduce" if ranks >= NODE_SIZES[row["gpu"]] else "all_reduce"
        kind = "all_reduce" if row["gpu"] == "gb200" else kind
    return LinkSample(
        group=f"{row['gpu']} {op}",
        kind=f"collectives.{kind}",
        seconds=float(row["us"]) * 1e-6,
        predict=lambda links: _OPS[op](links, float(row["bytes"]), ranks, ranks),
    )


def deepep_samples(rows: Iterable[Row]) -> list[LinkSample]:
    """Return the samples of deepep_normal.csv, dispatch and combine of up to four nodes."""
    used = (row for row in rows if int(row["nodes"]) < _PATHOLOGICAL_NODES)
    return [_deepep_sample(row, way) for row in used for way in ("dispatch", "combine")]


def _deepep_sample(row: Row, way: str) -> LinkSample:
    ranks, nodes = int(row["ep"]), int(row["nodes"])
    limited = nodes >= _PATHOLOGICAL_NODES
    sizes = ExchangeSizes(
        tokens=int(row["tokens_per_gpu"]),
        hidden=int(row["hidden"]),
        top_k=int(row["topk"]),
        experts=int(row["experts"]),
        ranks=ranks,
        ranks_per_domain=ranks // nodes,
        dispatch_fp8=True,
        groups=_GROUPS if limited else 1,
        groups_per_token=_GROUPS_PER_TOKEN if limited else 1,
        sms=int(row["sms"]),
    )

    def predict(links: Links) -> float:
        exchange = exchange_seconds(links, sizes, "deepep")
        return exchange.dispatch_seconds if way == "dispatch" else exchange.combine_seconds

    return LinkSample(
        group=f"{row['gpu']} {way} on {nodes} nodes",
        kind=f"exchanges.{way}",
        seconds=float(row[f"{way}_us"]) * 1e-6,
        predict=predict,
        several_domains=nodes > 1,
    )


def fit_links(start: Links, samples: list[LinkSample]) -> Links:
    """Return the links with every section fitted that has samples."""
    links = start
    for kind in sorted({sample.kind for sample in samples}):
        links = _fit_section(links, kind, [each for each in samples if each.kind == kind])
    return links


def _fit_section(links: Links, kind: str, samples: list[LinkSample]) -> Links:
    part, section = kind.split(".")
    values = getattr(getattr(links, part), section).model_dump()
    # In one domain nothing tells the seconds of a byte between domains.
    known = any(sample.several_domains for sample in samples)
    names = [name for name in values if known or name != "node_byte_seconds"]
    measured = np.array([sample.seconds for sample in samples])

    def changed(logs: Vector) -> Links:
        new = dict(zip(names, np.exp(logs).tolist(), strict=True))
        return with_section(links, part, section, {**values, **new})

    def residuals(logs: Vector) -> Vector:
        tried = changed(logs)
        ratios: Vector = np.array([sample.predict(tried) for sample in samples]) / measured
        return np.asarray(np.log(ratios), dtype=np.float64)

    fit = fit_least_squares(residuals, np.log(np.array([values[name] for name in names])))
    return changed(fit.parameters)


def with_section(links: Links, part: str, section: str, values: Mapping[str, float]) -> Links:
    """Return the links with one section of `collectives` or `exchanges` replaced."""
    sections: dict[str, Any] = getattr(links, part).model_dump()
    sections[section] = dict(values)
    model = Collectives if part == "collectives" else Exchanges
    return links.model_copy(update={part: model.model_validate(sections)})


def start_links(gpu: str, exchanges: Exchanges | None = None) -> Links:
    """Return the links of a card of the tables, with parameters from which a fit begins."""
    several = gpu != "gb200"
    section = dict(_COLLECTIVE_START)
    return Links.model_validate(
        {
            "domain_size": NODE_SIZES[gpu],
            "node_size": NODE_SIZES[gpu],
            "domain_bytes_per_s": DOMAIN_RATES[gpu],
            "switch_reduces": several,
            "network_bytes_per_s": 5e10,
            "rails": NODE_SIZES[gpu],
            "fabric": "infiniband",
            "collective_sms": 20,
            "collectives": {
                "gather": section,
                "all_reduce": section,
                "switch_reduce": section if several else None,
                "all_to_all": section,
            },
            "exchanges": exchanges
            or {"dispatch": dict(_EXCHANGE_START), "combine": dict(_EXCHANGE_START)},
            "fitted_on": gpu,
            "sources": dict.fromkeys(Links.model_fields, "the tables' conditions"),
        }
    )


def main(arguments: list[str] | None = None) -> int:
    """Fit every card of the tables and print its sections; return the exit code."""
    parser = argparse.ArgumentParser(prog="links", description=__doc__)
    parser.add_argument("tables", type=Path, help="folder of the CSV tables")
    tables = parser.parse_args(arguments).tables
    try:
        nccl = read_rows(tables / "nccl_one_node.csv", NCCL_SIZES, held_out=False)
        deepep = read_rows(tables / "deepep_normal.csv", DEEPEP_SIZES, held_out=False)
    except ParallelError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    exchanges = None
    for gpu in NODE_SIZES:
        samples = nccl_samples(row for row in nccl if row["gpu"] == gpu)
        samples += deepep_samples(row for row in deepep if row["gpu"] == gpu)
        links = fit_links(start_links(gpu, exchanges), samples)
        exchanges = exchanges or links.exchanges
        print(f"# {gpu}")
        for part in ("collectives", "exchanges"):
            for section, values in getattr(links, part).model_dump(exclude_none=True).items():
                lines = [f"{name} = {value:.3g}" for name, value in values.items()]
                print("\n".join([f"[links.{part}.{section}]", *lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
