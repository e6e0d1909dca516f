"""Where a model says what it is: beside it, or in the run whose checkpoint it is, links or not."""

from pathlib import Path

import pytest

from moe.config.locating import model_file


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint."""
    run = tmp_path / "runs" / "one"
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    (run / "experiment.toml").touch()
    return run


@pytest.mark.parametrize("moved", [None, "checkpoints", "checkpoints/step-00000001"])
def test_a_checkpoint_is_its_run_s_wherever_its_folder_was_moved(
    moved: str | None, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if moved is not None:
        archived = tmp_path / "another" / "disk" / "moved"
        archived.parent.mkdir(parents=True)
        (tmp_path / "another" / "experiment.toml").touch()
        (run / moved).rename(archived)
        (run / moved).symlink_to(archived)
    checkpoint = run / "checkpoints" / "step-00000001"
    monkeypatch.chdir(run.parent)
    for path in (checkpoint, checkpoint.relative_to(run.parent)):
        found = model_file(path)
        assert found is not None and found.samefile(run / "experiment.toml")


def test_a_link_to_a_checkpoint_leads_to_its_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, best = run / "checkpoints" / "step-00000001", tmp_path / "best"
    best.symlink_to(checkpoint)
    monkeypatch.chdir(checkpoint)
    for path in (best, Path()):
        found = model_file(path)
        assert found is not None and found.samefile(run / "experiment.toml")


def test_nowhere(tmp_path: Path) -> None:
    assert model_file(tmp_path / "a" / "b") is None
