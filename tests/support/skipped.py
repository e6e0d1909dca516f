"""Two halves of one run: what a bare environment skips is run again where nothing is missing.

`--record-skipped FILE` writes the names of tests that were skipped; `--only-skipped FILE` runs
those, and with them the folders whose outcome depends on which extras are there.
"""

import os
from pathlib import Path

import pytest

SENSITIVE = ("tests/benchmarks/bench_data/", "tests/benchmarks/launch/test_loggers.py",
             "tests/parallel/engine/test_imports.py",
             "tests/data/loading/test_dali.py", "tests/data/tokenization/",
             "tests/moe/training/test_resume.py::test_a_blend_may_be_changed")  # fmt: skip
"""They also do something where an extra is absent, so both ways are run."""


class SkippedRecorder:
    """Appends the name of every skipped test to a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_text("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            with self._file.open("a") as file:
                file.write(f"{report.nodeid}\n")


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("moescale")
    group.addoption("--record-skipped", type=Path, help="Write the names of skipped tests here.")
    group.addoption("--only-skipped", type=Path, help="Run the tests that this file names.")


def configure(config: pytest.Config) -> None:
    file = config.getoption("--record-skipped")
    if file is not None and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(SkippedRecorder(file))


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    file = config.getoption("--only-skipped")
    if file is None:
        return
    names = set(file.read_text().splitlines())
    chosen = [one for one in items if one.nodeid in names or one.nodeid.startswith(SENSITIVE)]
    config.hook.pytest_deselected(items=[one for one in items if one not in set(chosen)])
    items[:] = chosen
