"""The short study, from text to finding, through the real engine."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from benchmarks.standard_library import standard_library
from tests.support.paths import ROOT

RUNS, LARGEST = 12, 2


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the short study worked, on two packages of Python's library."""
    folder = tmp_path_factory.mktemp("study") / "out"
    done = study(folder)
    assert done.returncode == 0, done.stderr
    return folder


def study(out: Path) -> subprocess.CompletedProcess[str]:
    """Run it, or what is missing of it."""
    packages = [path for path in standard_library() if path.name in {"email", "json"}]
    assert len(packages) == 2
    text = [word for path in packages for word in ("--text", str(path))]
    return run(["-m", "benchmarks.study", "--designs", "short", "--out", str(out), *text])


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python on this tree."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def document(out: Path) -> dict[str, Any]:
    """Return its result."""
    found: dict[str, Any] = json.loads((out / "study.json").read_text())
    return found


def test_it_keeps_all_runs_with_their_losses(document: dict[str, Any]) -> None:
    runs = document["runs"]
    assert len(runs) == RUNS + LARGEST
    assert all(3 < run["loss"] < 6.5 for run in runs)  # ln 512 is 6.24
    for held, count in ((2e9, 6), (6e9, 6), (1.2e10, 2)):
        near = [run for run in runs if run["asked_held"] == held]
        assert len(near) == count
        assert all(run["flops"] == pytest.approx(held, rel=0.05) for run in near)


def test_the_largest_are_predicted_before_they_run(out: Path, document: dict[str, Any]) -> None:
    predicted = out / "predictions.json"
    by_experts = json.loads(predicted.read_text())
    assert sorted(by_experts) == ["1", "4"]
    written = predicted.stat().st_mtime
    largest = [run for run in document["runs"] if run["asked_held"] == 1.2e10]
    assert all(datetime.fromisoformat(run["started_at"]).timestamp() > written - 1
               for run in largest)  # fmt: skip
    for one in document["predictions"]:
        assert one["predicted"] == by_experts[str(one["experts"])]
        losses = [run["loss"] for run in largest if run["experts"] == one["experts"]]
        assert one["measured"] == losses
        assert one["error"] == pytest.approx(one["predicted"]["loss"] - losses[0])
    fitted = pyarrow.parquet.read_table(out / "runs.parquet")
    assert fitted.num_rows == RUNS
    assert max(fitted["flops"].to_pylist()) < 1e10


def test_it_says_what_it_found(out: Path, document: dict[str, Any]) -> None:
    text = " ".join(document["finding"])
    for one in document["predictions"]:
        assert f"predicted at {one['predicted']['loss']:.3f} nats/token" in text
    assert "no telling noise" in text  # one seed
    assert document["conditions"]["packages"]["torch"]
    page = (out / "study.html").read_text()
    for name in ("study-isoflop", "study-compute"):
        assert f'id="plot-{name}"' in page


def test_again_it_trains_nothing(out: Path, document: dict[str, Any]) -> None:
    done = study(out)
    assert done.returncode == 0, done.stderr
    assert f"{RUNS} of {RUNS} runs are finished, 0 to run" in done.stderr
    assert f"{LARGEST} of {LARGEST} runs are finished, 0 to run" in done.stderr
    again = json.loads((out / "study.json").read_text())
    assert {**again, "conditions": None} == {**document, "conditions": None}


@pytest.mark.parametrize("option", ["--out", "--result"])
def test_what_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_text("")
    place = {"--out": tmp_path / "file", "--result": tmp_path / "file" / "result.json"}[option]
    words = ["-m", "benchmarks.study", "--designs", "short", "--out", str(tmp_path / "out")]
    done = run([*words, option, str(place)])
    assert done.returncode == 2
    assert done.stderr.startswith("moe: ") and len(done.stderr.splitlines()) == 1
    assert str(tmp_path / "file") in done.stderr
    assert not (tmp_path / "out" / "store").exists()


def test_stopped_by_a_signal_it_ends_with_one_line(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\nfrom data.errors import StoppedError\n"
        "import benchmarks.study.study as study\n"
        "def stopped(*_): raise StoppedError('stopped by a signal: the same command continues')\n"
        "study.run_study = stopped\n"
        f"sys.argv = ['study', '--out', {str(tmp_path / 'out')!r}]\n"
        "runpy.run_module('benchmarks.study', run_name='__main__')"
    )
    done = run(["-c", code])
    assert done.returncode == 75
    assert done.stderr == "moe: stopped by a signal: the same command continues\n"
