"""The token store of the engine's tests, and the one-process runs others are compared with."""

from pathlib import Path

import pytest

from tests.support.distributed import run_ranks, start_server
from tests.support.layout_equivalence import (
    Curve,
    Whole,
    assemble,
    first_gradients,
    make,
    train_curve,
)

start_server()


@pytest.fixture(scope="session")
def one_process(store: Path) -> Curve:
    curve: Curve = run_ranks(1, train_curve, make(store))[0]
    return curve


@pytest.fixture(scope="session")
def one_process_gradients(store: Path) -> Whole:
    experiment = make(store, {"distributed_optimizer": False})
    return assemble(run_ranks(1, first_gradients, experiment))
