"""A run directory that somebody else made or that was damaged: one line, or a valid read."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from moe.errors import ConfigError
from moe.runs.directory import RunDirectory
from moe.runs.goodput import append_start
from moe.runs.progress import read_progress
from moe.runs.reader import read_run
from moe.runs.record import read_record_if_any
from tests.support.hostile_json import damaged, mutations, read_document, write_document
from tests.support.synthetic_runs import make_run

KEEPS_FOLDER = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FILES = ("record.json", "experiment.toml", "metrics.jsonl", "evaluations.jsonl",
         "expert_load.jsonl", "routing.jsonl", "routing_maps.json")  # fmt: skip
START = {"ranks": 1, "first_step": 0, "first_tokens": 0, "allocated_s": 1.5, "tokens": 8,
         "ended": None}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", sparse=True, steps=3, changes={"starts": [START]})


def refused(act: Callable[[], Any]) -> None:
    try:
        act()
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 600, str(error)


def read(run: Path) -> None:
    """Read all that reports, a resumed run and `moe slurm status` read."""
    read_progress(run)
    refused(lambda: append_start(read_record_if_any(run).get("starts") or [], None, START))
    read_run(run)


@KEEPS_FOLDER
@given(st.data())
@pytest.mark.parametrize("name", FILES)
def test_any_value_is_read_or_refused(run: Path, name: str, data: st.DataObject) -> None:
    original = (run / name).read_bytes()
    try:
        if write_document(run / name, data.draw(mutations(read_document(run / name)))):
            refused(lambda: read(run))
    finally:
        (run / name).write_bytes(original)


@KEEPS_FOLDER
@given(st.data())
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_refused(run: Path, name: str, data: st.DataObject) -> None:
    original = (run / name).read_bytes()
    try:
        (run / name).write_bytes(data.draw(damaged(original)))
        refused(lambda: read(run))
    finally:
        (run / name).write_bytes(original)


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
@pytest.mark.parametrize("name", FILES)
def test_only_regular_files_of_the_run_are_opened(run: Path, kind: str, name: str) -> None:
    outside = (run / name).rename(run.parent / name)
    if kind == "fifo":
        os.mkfifo(run / name)
    elif kind == "link":
        (run / name).symlink_to(outside)
    else:
        (run / name).mkdir()
    message = {"fifo": "not a regular file", "link": "a symbolic link", "folder": "Is a directory"}
    with pytest.raises(ConfigError, match=message[kind]):
        read_run(run)
    read_progress(run)  # what is damaged is unknown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": "many"}, "record.json: tokens = 'many'"),
        ({"final_loss": [4]}, "record.json: final_loss: [4] is not a finite number"),
        ({"hardware": []}, "record.json: hardware = []"),
        ({"energy": {"total": {"value": 1.0}}}, "record.json: energy.total.unit is missing"),
        ({"energy": {"phases": {"train": 1}}}, "record.json: energy.phases.train = 1"),
        ({"starts": [{"ranks": 1}]}, "record.json: starts.0.first_step is missing"),
        ({"format": True}, "record.json: format True is not 1"),
        ({"a\nb": {}, "mfu": -1}, "record.json: mfu = -1"),
        ({"mfu": 1e-300}, "record.json: mfu: 1e-300 is smaller than any number of a run"),
        ({"training_flops": "many"}, "record.json: training_flops: 'many' is not a finite number"),
    ],
)
def test_a_value_of_another_kind_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    run = make_run(tmp_path / "run", sparse=False, steps=2, changes=changes)
    with pytest.raises(ConfigError) as refused:
        read_run(run)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        (
            "metrics.jsonl",
            {"step": 9, "tokens": 1, "loss": "x"},
            "line 4: loss: 'x' is not a fin",
        ),
        ("metrics.jsonl", {"step": 9, "tokens": 1, "other": [1]}, "line 4: other"),
        ("metrics.jsonl", {"step": -1, "tokens": 1}, "line 4: step = -1"),
        (
            "expert_load.jsonl",
            {"step": 9, "layers": [1], "counts": [[1, 2]]},
            "step 9 is of other layers or experts than step 1",
        ),
        (
            "routing.jsonl",
            {"step": 9, "layers": [1, 2], "drop_rate": [0.0]},
            "line 4: drop_rate is not a number for each of `layers`",
        ),
    ],
)
def test_a_wrong_row_is_named(run: Path, file: str, row: dict[str, Any], message: str) -> None:
    with (run / file).open("a") as opened:
        opened.write(json.dumps(row) + "\n")
    with pytest.raises(ConfigError) as refused:
        read_run(run)
    assert message in str(refused.value)


def test_a_number_that_was_not_measured_is_null(run: Path) -> None:
    """Python's JSON has NaN, which a diverged run's rows may hold."""
    with (run / "metrics.jsonl").open("a") as opened:
        opened.write('{"step": 9, "tokens": 99999, "loss": NaN, "z_loss": -Infinity}\n')
    assert read_run(run).metrics[-1] == {"step": 9, "tokens": 99999, "loss": None, "z_loss": None}


def test_a_record_stays_as_it_is(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    assert list(read_run(run).record.items()) == list(record.items())
    assert read_record_if_any(run) == record


def test_a_link_to_an_experiment_elsewhere_is_not_continued(run: Path, tmp_path: Path) -> None:
    from moe.config.experiment import make_experiment

    train = {"steps": 1, "seq_len": 8, "global_batch_size": 1}
    experiment = make_experiment({"model": {"preset": "tiny"}, "train": train})
    (tmp_path / "e.toml").write_text(experiment.to_toml())
    (run / "experiment.toml").unlink()
    (run / "experiment.toml").symlink_to(tmp_path / "e.toml")
    with pytest.raises(ConfigError, match="a symbolic link"):
        RunDirectory(run, experiment, resume=True)
