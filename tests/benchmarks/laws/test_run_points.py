"""Run directories as points."""

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.laws.law_columns import law_points
from benchmarks.laws.registry import LAWS
from benchmarks.laws.run_points import points_from
from moe.runs.reader import read_run
from tests.support.synthetic_runs import EXPERTS, TOP_K, make_run


def test_runs_are_points(tmp_path: Path) -> None:
    paths = [tmp_path / "dense", tmp_path / "sparse"]
    for path, loss in zip(paths, (4.0, 3.5), strict=True):
        make_run(path, sparse=path.name == "sparse", final_loss=loss)
    points = points_from(paths)
    runs = [read_run(path) for path in paths]
    columns = points.columns
    assert columns["loss"].tolist() == [4.0, 3.5]
    assert columns["tokens"].tolist() == [run.tokens for run in runs]
    assert columns["parameters"].tolist() == [run.total_parameters for run in runs]
    assert columns["active_parameters"].tolist() == [run.active_parameters for run in runs]
    assert columns["experts"].tolist() == [1, EXPERTS]
    assert columns["top_k"].tolist() == [1, TOP_K]
    assert columns["shared_experts"].tolist() == [0, 0]
    sparsity = law_points(LAWS["abnar"], points).columns["sparsity"]
    assert sparsity.tolist() == [0, (EXPERTS - TOP_K) / EXPERTS]


def test_bits_are_those_of_matmuls(tmp_path: Path) -> None:
    for name, table in {"fp32": "", "fp8": '\n[precision]\nfp8 = "emulated"\n'}.items():
        file = make_run(tmp_path / name, sparse=False) / "experiment.toml"
        file.write_text(file.read_text() + table)
    points = points_from([tmp_path / "fp32", tmp_path / "fp8"])
    assert points.columns["bits"].tolist() == [32, 8]


def test_a_run_without_a_final_loss_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", sparse=False, changes={"final_loss": None})
    with pytest.raises(BenchmarkError, match="no final held-out loss"):
        points_from([tmp_path / "run"])


def test_files_and_runs_do_not_mix(tmp_path: Path) -> None:
    make_run(tmp_path / "run", sparse=False)
    (tmp_path / "points.csv").write_text("loss\n3\n")
    with pytest.raises(BenchmarkError, match="give one file, or run directories"):
        points_from([tmp_path / "run", tmp_path / "points.csv"])


def test_more_runs_than_a_report_shows_are_points(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:03}" for number in range(201)]
    for number, path in enumerate(paths):
        make_run(path, sparse=False, steps=1, final_loss=3 + number / 1000)
    points = points_from(paths)
    assert len(points) == 201
    assert points.columns["loss"][200] == 3.2
