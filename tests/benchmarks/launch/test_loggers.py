"""Weights & Biases and MLflow, the real ones, offline: what a run leaves for them to show."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.launch.loggers import final_figures, open_loggers
from moe.config.experiment import make_experiment
from tests.support.needs import need
from tests.support.paths import ROOT

RESUME = """
import sys
from contextlib import closing
from pathlib import Path
from benchmarks.launch.loggers import MlflowLogger
from moe.config.experiment import load_experiment
run = Path(sys.argv[1])
logger = MlflowLogger(load_experiment(run / "experiment.toml"))
logger.begin(run, {"run_id": "again"}, 4)
logger.scalars(5, {"train/loss": 1.25})
logger.end({"status": "finished", "steps": 5, "final_loss": 1.5})
"""
EXPERIMENT = """
name = "shown"
[model]
preset = "tiny"
[data]
store = "{store}"
[train]
steps = 4
seq_len = 32
global_batch_size = 2
[track]
use = ["wandb", "mlflow"]
project = "trial"
"""


def experiment(**track: Any) -> Any:
    train = {"steps": 1, "seq_len": 16, "global_batch_size": 1}
    return make_experiment({"model": {"preset": "tiny"}, "train": train, "track": track})


def run_python(*arguments: str | Path) -> Any:
    # As on a machine with no way out: what tries to connect fails at once.
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False,
        timeout=600, cwd=ROOT, env={**os.environ, **nowhere, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("loggers")
    from data.build.build import build_store

    root = tmp_path_factory.mktemp("tracked")
    build_store([ROOT / "data"], root / "store", tokenizer="bytes", held_out_fraction=0.2)
    file = root / "experiment.toml"
    file.write_text(EXPERIMENT.format(store=root / "store"))
    done = run_python("-m", "moescale", "train", file, "--run-dir", root / "run", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("{")
    assert done.stdout.count("\n") == 1
    return root / "run"


def metrics(run: Path) -> dict[str, dict[int, float]]:
    with closing(sqlite3.connect(run / "mlflow.db")) as database:
        rows = database.execute("select key, step, value from metrics").fetchall()
    found: dict[str, dict[int, float]] = {}
    for key, step, value in rows:
        found.setdefault(key, {})[step] = value
    return found


def test_mlflow_holds_every_step_and_the_final_figures(run: Path) -> None:
    found = metrics(run)
    assert sorted(found["train/loss"]) == [1, 2, 3, 4]
    assert all(0 < loss < 8 for loss in found["train/loss"].values())
    assert found["final/loss"][4] == found["held_out/loss"][4]
    assert found["final/energy_joules"][4] > 0
    with closing(sqlite3.connect(run / "mlflow.db")) as database:
        parameters = dict(database.execute("select key, value from params").fetchall())
        [project] = database.execute("select name from experiments where experiment_id != 0")
    assert parameters["train.seq_len"] == "32"
    assert project == ("trial",)


def test_wandb_is_offline_and_holds_the_run(run: Path) -> None:
    [folder] = (run / "wandb").glob("offline-run-*")
    [file] = folder.glob("*.wandb")
    content = file.read_bytes()
    for name in (b"train/loss", b"held_out/loss", b"expert_load/layer_", b"final/tokens"):
        assert name in content


def test_a_resumed_run_stays_one_run_of_mlflow(run: Path) -> None:
    done = run_python("-c", RESUME, run)
    assert done.returncode == 0, done.stderr[-3000:]
    with closing(sqlite3.connect(run / "mlflow.db")) as database:
        assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
    assert metrics(run)["train/loss"][5] == 1.25


def test_a_logger_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.launch.loggers.find_spec", lambda _name: None)
    assert open_loggers(experiment()) == []
    with pytest.raises(BenchmarkError, match=r"moescale\[mlflow\]") as error:
        open_loggers(experiment(use=["mlflow"]))
    assert error.value.exit_code == 2


def test_where_a_run_is_shown_does_not_change_which_run_it_is() -> None:
    assert experiment().content_hash == experiment(use=["wandb"]).content_hash


def test_final_figures_leave_out_what_is_unknown() -> None:
    record = {"final_loss": 2.0, "tokens": 10, "energy": {"total": {"value": None}}}
    assert final_figures(record) == {"final/loss": 2.0, "final/tokens": 10.0}
