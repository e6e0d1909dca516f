"""The runs of Clark et al. 2022 as points (licence and origin: data/README.md)."""

import csv
from importlib import resources

import numpy as np

from benchmarks.errors import BenchmarkError
from benchmarks.laws.points import Points

FILE = "clark_2022_runs.csv"
ROUTERS = ("S-Base", "RL-R", "Hash")
_COLUMNS = {
    "active_parameters": "dense_parameter_count",
    "parameters": "total_parameter_count",
    "experts": "num_experts",
    "top_k": "k",
    "loss": "loss_validation",
}


def clark_points(router: str) -> Points:
    """Return the points of the paper's table 3 for one router: k = 1, every second layer routed.

    The five dense runs of the same seed stand among each router's.

    Raises:
        BenchmarkError: No router has that name.
    """
    if router not in ROUTERS:
        raise BenchmarkError(f"router {router!r}: none of {', '.join(ROUTERS)}")
    text = (resources.files("benchmarks.laws") / "data" / FILE).read_text(encoding="utf-8")
    chosen = [
        (number, run)
        for number, run in enumerate(csv.DictReader(text.splitlines()), start=2)
        if run["router_type"] in (router, "Dense")
        and (run["routing_frequency"], run["k"], run["seed"]) == ("0.5", "1", "42")
    ]
    columns = {
        name: np.array([float(run[source]) for _, run in chosen])
        for name, source in _COLUMNS.items()
    }
    return Points(FILE, columns, {}, tuple(number for number, _ in chosen))
