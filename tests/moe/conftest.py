"""The token store of the engine's tests, and the one-process runs others are compared with."""

import random
from pathlib import Path

import pytest

from data.build.build import build_store
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
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    chance = random.Random(1)
    sentence = "a model learns which expert reads the next token and the router sends it"
    text = [" ".join(chance.choices(sentence.split(" "), k=200)) for _ in range(60)]
    for index, document in enumerate(text):
        (folder / f"{index:02d}.txt").write_text(document)
    build_store([folder], folder / "store", tokenizer="bytes", held_out_fraction=0.2)
    return folder / "store"


@pytest.fixture(scope="session")
def one_process(store: Path) -> Curve:
    curve: Curve = run_ranks(1, train_curve, make(store))[0]
    return curve


@pytest.fixture(scope="session")
def one_process_gradients(store: Path) -> Whole:
    experiment = make(store, {"distributed_optimizer": False})
    return assemble(run_ranks(1, first_gradients, experiment))
