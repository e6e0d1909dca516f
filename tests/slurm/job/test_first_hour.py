"""The dry runs of the guide to a first hour on a cluster, with its own files."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import moescale
from tests.support.docs_examples import blocks

PAGE = "docs/guides/cluster.md"
DRY_RUNS = [
    line
    for text in blocks(PAGE, "bash")
    for line in text.splitlines()
    if line.startswith("moe slurm") and "--dry-run" in line
]


@pytest.mark.parametrize("line", DRY_RUNS)
def test_dry_run_gives_a_script_for_sixteen_cards(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles, smoke = blocks(PAGE, "toml")
    (tmp_path / "slurm.toml").write_text(profiles)
    (tmp_path / "smoke.toml").write_text(smoke)
    monkeypatch.setenv("MOESCALE_SLURM_FILE", str(tmp_path / "slurm.toml"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(moescale.app, shlex.split(line, comments=True)[1:])
    assert done.exception is None, done.output
    for option in ("--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=h100:8"):
        assert f"#SBATCH {option}\n" in done.stdout


def test_what_is_shown_first_is_what_is_submitted() -> None:
    lines = [line for text in blocks(PAGE, "bash") for line in text.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    for line in DRY_RUNS:
        words = shlex.split(line, comments=True)
        words.remove("--dry-run")
        assert words in commands
