"""Settings of all tests, and what more than one room's tests share."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support import skipped
from tests.support.needs import need

# Several workers share the machine: none of them may take all cores. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# A script that starts the tests with `&` ignores interrupts, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine is not a failure: no test may depend on the clock. Nor on chance: what lands was
# tried with the same examples. `--hypothesis-profile=search` looks for new ones.
settings.register_profile("search", deadline=None)
settings.register_profile("same_examples", deadline=None, derandomize=True)
settings.load_profile("same_examples")


# typer reads this once: help has no colors, whatever the terminal or CI says.
os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"


@pytest.fixture(scope="session", autouse=True)
def terminal() -> Iterator[None]:
    """One width and no colors for text that commands print, here and in child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        for name in ("FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patch.delenv(name, raising=False)
        yield


# Files that wait long begin first, the clusters apart; then the rest by name.
FIRST = (
    "real_cluster/test_survival",
    "test_train_command",
    "tests/data",
    "real_cluster/test_commands",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    skipped.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    skipped.configure(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skipped.select(config, items)
    items.sort(key=lambda item: [name not in item.nodeid for name in FIRST])


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        need(*mark.args)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that keeps its console's lines."""
    need("chromium")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The token store that small models are trained on."""
    from data.build.build import build_store

    folder = tmp_path_factory.mktemp("engine")
    chance = random.Random(1)
    sentence = "a model learns which expert reads the next token and the router sends it"
    text = [" ".join(chance.choices(sentence.split(" "), k=200)) for _ in range(60)]
    for index, document in enumerate(text):
        (folder / f"{index:02d}.txt").write_text(document)
    build_store([folder], folder / "store", tokenizer="bytes", held_out_fraction=0.2)
    return folder / "store"
