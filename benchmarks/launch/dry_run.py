"""`moe train --dry-run`: everything that can be said before a run starts."""

import json
from dataclasses import asdict
from typing import Any

import typer

from benchmarks.energy.preflight import check_energy
from moe.config.experiment import Experiment
from moe.cost.ledger import ledger
from moe.cost.memory_need import workload_of
from moe.training.loader import open_loader
from moe.training.startup.preflight import check_before_start
from parallel.layout.placement import Placement
from parallel.planner.memory import peak_memory


def show(experiment: Experiment, num_ranks: int, *, as_json: bool) -> None:
    """Print the resolved experiment, its layout over `num_ranks` ranks, its cost and memory."""
    placement = check_before_start(experiment, num_ranks)
    check_energy(experiment.energy)
    costs = ledger(experiment.model, experiment.train.seq_len)
    memory = peak_memory(workload_of(experiment, placement))
    loader = open_loader(experiment, "train", ranks=placement.dp)
    sources = loader.describe(experiment.train.steps)
    loader.close()
    if as_json:
        document: dict[str, Any] = {
            "experiment": experiment.model_dump(mode="json"),
            "run_id": f"{experiment.name}-{experiment.content_hash}",
            "layout": _layout(experiment, placement),
            "ledger": costs.as_json(),
            "memory": memory.as_json(),
            "data": sources,
        }
        typer.echo(json.dumps(document))
        return
    from rich.console import Console

    from moe.cost.tables import component_table, size, summary_line

    console = Console()
    console.print(experiment.to_toml(), markup=False, highlight=False)
    for name, source in sources.items():
        console.print(_source_line(name, source), markup=False, highlight=False)
    sizes = " ".join(f"{name}={n}" for name, n in _layout(experiment, placement).items())
    console.print(f"layout over {num_ranks} rank(s): {sizes}", highlight=False)
    console.print(component_table(experiment.name, costs))
    console.print(summary_line(costs), highlight=False)
    terms = {k: v for k, v in asdict(memory).items() if k != "stage" and v}
    parts = ", ".join(f"{name.removesuffix('_bytes')} {size(n)}" for name, n in terms.items())
    console.print(
        f"peak memory on one rank (modelled): {size(memory.total_bytes)} = {parts}",
        highlight=False,
    )


def _source_line(name: str, source: dict[str, Any]) -> str:
    line = f"source {name}: {source['sequences']:,} sequences, read {source['epochs']:.3g} times"
    if "padding_share" in source:
        line += f"; {source['padding_share']:.2%} padding, {source['cut_share']:.2%} documents cut"
    return line


def _layout(experiment: Experiment, placement: Placement) -> dict[str, int]:
    names = ("tp", "cp", "pp", "vpp", "ep", "etp")
    sizes = {name: getattr(experiment.parallel, name) or 1 for name in names}
    return sizes | {"dp": placement.dp, "edp": placement.edp}
