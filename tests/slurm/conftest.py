"""Simulated jobs that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulator import Simulator


@pytest.fixture
def simulate(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    """Make simulated jobs."""
    made: list[Simulator] = []

    def make(**options: Any) -> Simulator:
        made.append(Simulator(tmp_path / f"job {len(made)}", **options))
        return made[-1]

    yield make
    for simulator in made:
        simulator.close()
