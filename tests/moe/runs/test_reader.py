"""Reading run directories, whole, torn and damaged."""

import json
from pathlib import Path

import pytest

from benchmarks.comparison.quantities import BY_KEY
from benchmarks.comparison.seed_groups import difference, group_runs, mean_interval
from moe.errors import ConfigError
from moe.runs.reader import read_run
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


def test_training_flops_are_of_padding_too(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("record.json", "{", "damaged, not JSON"),
        ("record.json", '{"format": 7}', "format 7 is not 1"),
        ("record.json", "[]", "format 'list' is not 1"),
        ("record.json", '{"format": 1, "ledger": {"total_parameters": 1}}', "active_parameters"),
        ("metrics.jsonl", "{}\n{}\n", "line 1 lacks step, tokens"),
        ("metrics.jsonl", 'nonsense\n{"step": 1, "tokens": 2}\n', "line 1 is damaged"),
        ("experiment.toml", "= 3", "not TOML"),
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


def test_seeds_are_grouped_and_nothing_else(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / f"sparse-seed{seed}", sparse=True, seed=seed, steps=20))
        for seed in range(3)
    ]
    runs.append(read_run(make_run(tmp_path / "dense", sparse=False, steps=20)))
    runs.append(read_run(make_run(tmp_path / "dense-long", sparse=False, steps=40)))
    groups = group_runs(runs)
    assert [(group.label, len(group.runs)) for group in groups] == [
        ("sparse", 3),
        ("dense", 1),
        ("dense-long", 1),
    ]


def test_interval_by_hand() -> None:
    """4.0, 4.2, 4.4: mean 4.2, s = 0.2, t(2) = 4.303: half-width 4.303 * 0.2 / sqrt(3)."""
    interval = mean_interval([4.0, 4.2, 4.4])
    assert interval.mean == pytest.approx(4.2)
    assert interval.half_width == pytest.approx(0.4969, abs=1e-4)
    assert mean_interval([4.0]).half_width is None


def test_welch_interval_by_hand() -> None:
    """Equal variances 0.04 and sizes 3: standard error 0.1633, 4 degrees of freedom, t 2.776."""
    gap = difference([1.0, 1.2, 1.4], [2.0, 2.2, 2.4])
    assert gap.mean == pytest.approx(-1.0)
    assert gap.half_width == pytest.approx(2.776 * 0.16330, rel=1e-3)
    assert difference([1.0], [2.0, 2.1]).half_width is None
