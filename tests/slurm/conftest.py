"""Simulated jobs that end with their test, and a user to submit from."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_cluster_user import FakeClusterUser
from tests.support.fake_commands import FakeCommands
from tests.support.simulator import Simulator


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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The record of a run that nothing disturbs."""
    simulator = Simulator(tmp_path_factory.mktemp("undisturbed") / "job")
    simulator.start()
    assert simulator.run_to_end() == 0
    simulator.close()
    return simulator.record()


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClusterUser:
    (tmp_path / "user").mkdir()
    return FakeClusterUser(tmp_path / "user", FakeCommands(tmp_path, monkeypatch))
