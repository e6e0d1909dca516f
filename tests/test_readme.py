"""What the README says is so: its commands parse, its experiment file is valid, its code runs."""

import re
import shlex
import tomllib

import pytest
import typer

import moescale
from moe.config.experiment import make_experiment
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, text in BLOCKS
    if not language or language == "bash"
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("moe ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_one_that_moe_takes(line: str) -> None:
    """Every command, option and choice exists; nothing is run."""
    words = shlex.split(line, comments=True)[1:]
    command, context = typer.main.get_command(moescale.app), None
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{words[0]} is no command"
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context(line, words)
    assert context.params


def test_experiment_is_valid() -> None:
    tables = [tomllib.loads(text) for language, text in BLOCKS if language == "toml"]
    experiments = [table for table in tables if "train" in table]
    assert experiments
    for table in experiments:
        # Where `init` is set, the model is that of a run that is not here.
        model = {"model": {"preset": "small"}} if "init" in table["train"] else {}
        assert make_experiment(table | model).train.steps > 0


def test_first_screen_says_what_to_do() -> None:
    first = README.splitlines()[:30]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)
