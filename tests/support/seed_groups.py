"""Groups of made-up runs."""

from pathlib import Path
from typing import Any

from benchmarks.comparison.seed_groups import SeedGroup, group_runs
from moe.runs.reader import read_run
from tests.support.synthetic_runs import make_run


def groups_of(root: Path, *plans: dict[str, Any]) -> list[SeedGroup]:
    runs = [
        read_run(make_run(root / plan.pop("name", f"run{i}"), **{"steps": 20, **plan}))
        for i, plan in enumerate(plans)
    ]
    return group_runs(runs)
