"""A small corpus and the store made from it."""

import random
from pathlib import Path

import pytest

from data.build.build import build_store

COMMON = "the of and a to in is you that it he was for on are as with his they at be this"


def make_documents(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [
        f"{index} " + " ".join(chance.choices(COMMON.split(" "), k=chance.randint(5, 120)))
        for index in range(count)
    ]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for index, text in enumerate(make_documents(60)):
        (folder / f"{index:03d}.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def byte_store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("stores") / "bytes"
    build_store([corpus], store, tokenizer="bytes", held_out_fraction=0.2)
    return store
