"""Commands of guides run as written, in an empty folder with the files that the guide shows."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moescale
from tests.support.docs_examples import moe_commands, named_files

LAWS, SWEEP, PLAN = "docs/guides/laws.md", "docs/guides/sweep.md", "docs/guides/plan.md"


def begin(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the page's files into a folder and go there."""
    for name, text in named_files(page).items():
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)


def run(words: list[str]) -> str:
    result = CliRunner().invoke(moescale.app, words)
    assert result.exit_code == 0, f"{words}: {result.output} {result.exception!r}"
    return result.stdout


def test_the_guide_of_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(LAWS, tmp_path, monkeypatch)
    subprocess.run([sys.executable, "make_points.py"], check=True)
    for words in moe_commands(LAWS):
        run([*words, "--resamples", "20"] if words[0] == "fit" else words)
    written = {path.name for path in tmp_path.iterdir()}
    assert {"points.csv", "law.json", "law.html", "best.html"} <= written


def test_the_guide_of_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The design is shown and planned; what trains is left to the tests of sweeps."""
    begin(SWEEP, tmp_path, monkeypatch)
    shown = [words for words in moe_commands(SWEEP) if words[:1] == ["sweep"]]
    dry = [words for words in shown if not {"--run", "--write"} & set(words)]
    assert len(dry) == 2
    assert all("Sweep iso: 8 runs" in run(words) for words in dry)


def test_the_guide_of_plans_shows_an_experiment_with_a_layout_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(PLAN, tmp_path, monkeypatch)
    (own,) = (words for words in moe_commands(PLAN) if words[-1] == "own")
    assert "tp=2 pp=4" in run(own)
