"""The study's designs: copied beside its store, expanded and run."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import tomli_w

from benchmarks.sweeps.design import Design, read_design
from benchmarks.sweeps.expand import expand
from benchmarks.sweeps.expansion import Expansion
from benchmarks.sweeps.folder import open_folder
from benchmarks.sweeps.results import Row
from benchmarks.sweeps.running import run_missing
from benchmarks.sweeps.speed import UnknownSpeed
from data.storage.atomic import write_text

BASE = "base.toml"
HELD_OUT = "largest"
"""The sweep whose losses are predicted before it runs; laws are fitted to all others."""


def copy_designs(name: str, folder: Path, store: Path) -> dict[str, Design]:
    """Write the designs of that name, their base on `store`, into a folder; returns them read."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped = resources.files("benchmarks.study") / "designs" / name
    files = sorted(file.name for file in shipped.iterdir())
    for file in files:
        text = (shipped / file).read_text(encoding="utf-8")
        if file == BASE:
            text += tomli_w.dumps({"data": {"store": str(store)}})
        write_text(folder / file, text)
    designs = [read_design(folder / file) for file in files if file != BASE]
    return {design.name: design for design in designs}


def expanded(design: Design) -> Expansion:
    """Return a design's runs."""
    return expand(design, UnknownSpeed())


def run_sweep(
    expansion: Expansion, folder: Path, jobs: int, say: Callable[[str], None]
) -> list[Row]:
    """Run what is missing of a sweep; returns its rows.

    Raises:
        StoppedError: A signal stopped it; the same call continues.
        FailedError: Runs failed.
    """
    points = [one.point for one in expansion.points]
    with open_folder(folder, expansion.design, points) as held:
        outcome = run_missing(held, expansion, jobs, say)
    outcome.check()
    return list(outcome.rows)
