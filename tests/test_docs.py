"""What README and docs say is so: commands parse, experiment files are valid, paths exist."""

import re
import shlex
import tomllib
from contextlib import suppress

import pytest
import typer

import moescale
from moe.config.experiment import make_experiment
from moescale import ROOMS
from tests.support.docs_examples import GENERATED, blocks, pages
from tests.support.paths import ROOT

COMMANDS = [
    pytest.param(line, id=f"{page}: {line}")
    for page in pages()
    for text in blocks(page, "bash")
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("moe ")
]
EXPERIMENTS = [
    pytest.param(table, id=page)
    for page in pages()
    for text in blocks(page, "toml")
    if "train" in (table := tomllib.loads(text))
]
PATHS = re.compile(r"`((?:moe|parallel|data|benchmarks|slurm|tests|docs)/[\w./-]*)`")
ELSEWHERE = {"docs/performance-summary-archive.md"}
"""Of another project."""


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_one_that_moe_takes(line: str) -> None:
    """Every command, option and choice exists; nothing is run."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(moescale.app)
    while hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{words[0]} is no command"
        command, words = command.commands[words[0]], words[1:]
    with suppress(typer.Exit):  # --version and --help end here
        assert command.make_context(line, words).params


@pytest.mark.parametrize("table", EXPERIMENTS)
def test_experiment_is_valid(table: dict[str, dict[str, object]]) -> None:
    # Where `init` is set, the model is that of a run that is not here.
    model = {"model": {"preset": "small"}} if "init" in table["train"] else {}
    assert make_experiment(table | model).train.steps > 0


@pytest.mark.parametrize("page", pages())
def test_paths_exist(page: str) -> None:
    named = set(PATHS.findall((ROOT / page).read_text(encoding="utf-8"))) - ELSEWHERE
    written = [path for path in sorted(named) if not path.startswith(GENERATED)]
    assert [path for path in written if not (ROOT / path).exists()] == []


def test_readme_is_one_screenful_that_begins_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert any(line.startswith("make demo") for line in lines[:30])
    assert any(line.startswith("make test") for line in lines[:30])


def test_readme_s_tree_has_every_package() -> None:
    (tree,) = (text for text in blocks("README.md", "text") if "moescale.py" in text)
    packages = {path.parent.relative_to(ROOT) for room in ROOMS
                for path in (ROOT / room).rglob("__init__.py")}  # fmt: skip
    named = set(re.findall(r"(\w+)/", tree))
    assert {path.name for path in packages} - {"presets"} <= named
