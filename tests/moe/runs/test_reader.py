"""Reading run directories, whole, torn and damaged."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from benchmarks.comparison.flop_convention import OWN_CONVENTION, WHOLE_ROWS, convention
from benchmarks.comparison.quantities import BY_KEY
from moe.errors import ConfigError
from moe.runs.reader import read_run, read_runs, read_runs_apart
from parallel.measurement.measurement import comparable
from tests.support.synthetic_runs import make_run


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", sparse=True, final_loss=4.25, steps=40))
    assert run.name == "a"
    assert run.final_loss == 4.25
    assert run.sparse
    assert run.num_experts == 8
    assert len(run.metrics) == 40
    assert len(run.evaluations) == 20
    assert run.expert_load[0]["layers"] == [1, 2, 3]
    assert run.energy("per_token", "J/token").kind == "modelled"


def test_training_flops_are_those_that_the_run_counted(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=10)
    record = json.loads((path / "record.json").read_text())
    record["training_flops"] = 2e6 * record["tokens"]
    (path / "record.json").write_text(json.dumps(record))
    run = read_run(path)
    assert BY_KEY["training_flops"].of(run).value == 2e6 * run.tokens
    assert BY_KEY["flops_per_token"].of(run).value == 2e6
    assert BY_KEY["mfu"].of(run).reason is None
    assert run.training_flops({"tokens": 3, "positions": 4, "training_flops": 5e6}) == 5e6


@pytest.mark.parametrize(
    "more",
    [
        {"data": {"document_mask": True}},
        {"data": {"packing": "best_fit"}},
        {"train": {"mode": "sft"}},
    ],
)
def test_a_run_that_counted_whole_rows_for_parts_is_marked(
    more: dict[str, Any], tmp_path: Path
) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=10)
    experiment = tomllib.loads((path / "experiment.toml").read_text()) | more
    plain = read_run(path)
    (path / "experiment.toml").write_text(tomli_w.dumps(experiment))
    run = read_run(path)
    for key in ("training_flops", "flops_per_token", "flops_per_s", "mfu"):
        found, unmarked = BY_KEY[key].of(run), BY_KEY[key].of(plain)
        assert found.value == unmarked.value
        assert found.reason is not None and found.reason.startswith("an upper bound")
        assert unmarked.reason is None and not comparable([found, unmarked])
    assert convention(run) == WHOLE_ROWS and convention(plain) == OWN_CONVENTION


def test_training_flops_of_older_runs_are_of_padding_too(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=10)
    whole = BY_KEY["training_flops"].of(read_run(path)).value
    assert whole == read_run(path).tokens * 13.1e6  # recorded before positions were
    record = json.loads((path / "record.json").read_text())
    record["positions"] = 2 * record["tokens"]
    (path / "record.json").write_text(json.dumps(record))
    assert BY_KEY["training_flops"].of(read_run(path)).value == 2 * whole
    assert read_run(path).training_flops({"tokens": 3, "positions": 4}) == 4 * 13.1e6


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=10)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "tok')
    assert [row["step"] for row in read_run(path).metrics] == list(range(1, 11))


def test_a_step_logged_twice_counts_once_the_later(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=3)
    with (path / "evaluations.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "tokens": 8192, "loss": 1.5}) + "\n")
    assert [row["loss"] for row in read_run(path).evaluations if row["step"] == 2] == [1.5]


def test_rows_of_two_runs_are_no_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=3)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "tokens": 1}) + "\n")
    with pytest.raises(ConfigError, match="step 4 has fewer tokens than step 3: two runs"):
        read_run(path)


def test_flops_of_no_token_are_the_ledgers(tmp_path: Path) -> None:
    changes = {"tokens": 0, "training_flops": 5.0}
    run = read_run(make_run(tmp_path / "a", sparse=False, steps=3, changes=changes))
    assert run.flops_per_trained_token == run.flops_per_token


def test_a_run_that_diverged_is_read(tmp_path: Path) -> None:
    """Losses and gradient norms may be as large as FP32 holds."""
    path = make_run(tmp_path / "a", sparse=False, steps=3)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tokens": 99999, "loss": 3.4e38, "learning_rate": 1e30}\n')
    assert read_run(path).metrics[-1]["loss"] == 3.4e38


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("record.json", "{", "not valid JSON.*: restore it from a copy"),
        ("record.json", "", "not valid JSON.*: restore it from a copy"),
        ("record.json", "{}", "damaged: an empty object: restore it from a copy"),
        ("record.json", '{"format": 7}', "format 7 is not 1"),
        ("record.json", "[]", "format 'list' is not 1"),
        ("record.json", '{"format": 1, "ledger": {"total_parameters": 1}}', "active_parameters"),
        ("metrics.jsonl", "{}\n{}\n", "line 1 lacks step, tokens"),
        ("metrics.jsonl", 'nonsense\n{"step": 1, "tokens": 2}\n', "line 1 is damaged"),
        ("experiment.toml", "= 3", "not valid TOML"),
    ],
)
def test_damage_is_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=5)
    (path / file).write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_run(path)
    assert str(path / file) in str(error.value)
    assert error.value.exit_code == 2


def test_not_a_run_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run directory"):
        read_run(tmp_path)


def failed_run(path: Path, reason: str = "energy.source: no meter") -> Path:
    path.mkdir()
    (path / "record.json").write_text(
        json.dumps({"format": 1, "status": "failed", "failure": reason})
    )
    return path


def test_a_run_that_failed_at_its_start_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"failed before its first step \(energy.source: no me"):
        read_run(failed_run(tmp_path / "a"))


def test_of_many_runs_those_that_cannot_be_read_come_apart(tmp_path: Path) -> None:
    good = make_run(tmp_path / "good", sparse=False, steps=5)
    failed = failed_run(tmp_path / "failed")
    (tmp_path / "slurm").mkdir()  # what `runs/*` names as well
    (tmp_path / "purged").symlink_to(tmp_path / "gone")
    others = [failed, tmp_path / "slurm", tmp_path / "purged"]
    runs, unreadable = read_runs_apart([good, *others])
    assert [run.path for run in runs] == [good]
    assert [run.path for run in unreadable] == others
    assert "no meter" in unreadable[0].reason
    assert all("not a run directory" in run.reason for run in unreadable[1:])
    with pytest.raises(ConfigError, match="failed before"):
        read_runs([good, failed])
    with pytest.raises(ConfigError, match="failed before"):
        read_runs_apart([failed])
    with pytest.raises(ConfigError, match="there is no such folder"):
        read_runs_apart([good, tmp_path / "typo"])
