"""A sweep's directory: one process, one design, which may grow."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.sweeps.design import Design
from benchmarks.sweeps.expand import expand
from benchmarks.sweeps.folder import open_folder
from benchmarks.sweeps.point import Point
from benchmarks.sweeps.speed import UnknownSpeed
from moe.config.energy import EnergyConfig
from moe.config.experiment import load_experiment
from tests.support.sweep_designs import make_design
from tests.support.synthetic_runs import make_run

PRICED = EnergyConfig(price_per_kwh=0.5)


def points_of(folder: Path, seeds: str) -> tuple[Design, list[Point]]:
    design = make_design(folder, f"[axes]\nseeds = {seeds}")
    return design, [one.point for one in expand(design, UnknownSpeed()).points]


def test_experiments_are_written_and_a_design_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "sweep"
    with open_folder(path, *points_of(tmp_path, "[0]")):
        assert len(list((path / "experiments").iterdir())) == 1
    with open_folder(path, *points_of(tmp_path, "[0, 1]")) as folder:
        design, points = points_of(tmp_path, "[0, 1]")
        assert all(folder.experiment(point).is_file() for point in points)
    with (
        pytest.raises(BenchmarkError, match="1 of its 2 runs are not of this design any more"),
        open_folder(path, *points_of(tmp_path, "[1, 2]")),
    ):
        pass
    assert len(list((path / "experiments").iterdir())) == 2


def test_a_changed_experiment_is_written_again_or_refused(tmp_path: Path) -> None:
    design, (point,) = points_of(tmp_path, "[0]")
    path = tmp_path / "sweep"
    with open_folder(path, design, [point]) as folder:
        make_run(folder.run_dir(point), sparse=False)
    text = folder.experiment(point).read_text()
    folder.experiment(point).write_text(text.replace("steps = 10", "steps = 11"))
    with (
        pytest.raises(BenchmarkError, match="was changed, and its run has begun"),
        open_folder(path, design, [point]),
    ):
        pass
    shutil.rmtree(folder.run_dir(point))
    with open_folder(path, design, [point]):
        assert folder.experiment(point).read_text() == text


@pytest.mark.parametrize("name", ["experiments", "runs", "logs", "results.parquet", "sweep.json"])
def test_what_stands_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    design, points = points_of(tmp_path, "[0]")
    path = tmp_path / "sweep"
    with open_folder(path, design, points):
        pass
    if (path / name).is_dir():
        shutil.rmtree(path / name)
        (path / name).touch()
    else:
        (path / name).unlink(missing_ok=True)
        (path / name).mkdir()
    with pytest.raises(BenchmarkError, match=f"{name}: "), open_folder(path, design, points):
        pass


def test_experiments_follow_the_base_until_their_run_begins(tmp_path: Path) -> None:
    """Prices are not in a run's name."""
    design, points = points_of(tmp_path, "[0, 1]")
    path = tmp_path / "sweep"
    with open_folder(path, design, points) as folder:
        make_run(folder.run_dir(points[0]), sparse=False)
    priced = [
        replace(one, experiment=one.experiment.model_copy(update={"energy": PRICED}))
        for one in points
    ]
    assert [one.run_name for one in priced] == [one.run_name for one in points]
    with open_folder(path, design, priced) as folder:
        begun, new = (load_experiment(folder.experiment(one)).energy for one in priced)
    assert (begun.price_per_kwh, new.price_per_kwh) == (None, 0.5)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    design, points = points_of(tmp_path, "[0]")
    with (
        open_folder(tmp_path / "sweep", design, points),
        pytest.raises(BenchmarkError, match="another moe sweep is at work there"),
        open_folder(tmp_path / "sweep", design, points),
    ):
        pass


def test_other_folders_and_files_are_refused(tmp_path: Path) -> None:
    design, points = points_of(tmp_path, "[0]")
    for path, message in (
        (tmp_path, r"holds other files and no sweep\.json"),
        (tmp_path / "base.toml", "choose another"),
    ):
        with pytest.raises(BenchmarkError, match=message), open_folder(path, design, points):
            pass
    assert {one.name for one in tmp_path.iterdir()} == {"base.toml", "design.toml"}


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": "other", "runs": {}}', "{"])
def test_a_damaged_list_of_runs_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sweep"
    path.mkdir()
    (path / "sweep.json").write_text(text)
    with (
        pytest.raises(BenchmarkError, match=r"sweep\.json"),
        open_folder(path, *points_of(tmp_path, "[0]")),
    ):
        pass
