"""The planner against published steps: the contract, honesty, and errors of what no fit saw."""

import csv
import math
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from benchmarks.planning.calibrate_steps import GROUPINGS
from benchmarks.planning.published_shapes import shape_of_row
from benchmarks.planning.validate import StepPredictor, memory_summary, validate
from parallel.errors import ParallelError
from parallel.planner.calibration.fit_steps import is_fitted_on
from parallel.planner.step.parameters import StepParameters, step_parameters
from parallel.planner.validation.rows import NUMBERS, PublishedRow, read_rows
from parallel.planner.validation.score import ErrorSummary, RowResult, all_scored, summarize
from tests.support.trained_runs import command

STEPS = Path(str(resources.files("benchmarks") / "published" / "training_steps.csv"))
LEFT_OUT = Path(__file__).with_name("left_out.toml")
"""Parameters fitted without one family of models, or without one card (`calibrate_steps
--left-out`)."""
PUBLISHED = ("tokens_per_s_per_gpu", "step_s", "tflops_per_gpu", "mfu_pct", "peak_memory_gib",
             "node_joule_per_token")  # fmt: skip


@cache
def answer() -> dict[str, Any]:
    return validate(STEPS)


@cache
def rows() -> tuple[PublishedRow, ...]:
    return tuple(read_rows(STEPS))


@cache
def results() -> tuple[RowResult, ...]:
    return tuple(all_scored(rows(), shape_of_row, StepPredictor()))


@cache
def cross_validated(grouping: str) -> tuple[RowResult, ...]:
    """Return all rows, each predicted with parameters of a fit that saw none of its group."""
    tables = tomllib.loads(LEFT_OUT.read_text())[grouping]
    group_of, found = GROUPINGS[grouping], []
    for name, values in tables.items():
        spread = step_parameters().spread.model_dump()
        predictor = StepPredictor(StepParameters.model_validate(values | {"spread": spread}))
        group = [row for row in rows() if group_of(row) == name]
        found += all_scored(group, shape_of_row, predictor)
    return tuple(found)


def summary(found: tuple[RowResult, ...], kind: str, *, held_out: bool = False) -> ErrorSummary:
    summarized = summarize(
        result
        for result in found
        if result.row.text("kind") == kind
        and not (held_out and is_fitted_on(result.row.text("layout_id") or ""))
    )
    assert summarized is not None
    return summarized


def test_the_answer_has_a_row_for_each_of_the_file_in_its_order() -> None:
    with STEPS.open(encoding="utf-8", newline="") as file:
        published = list(csv.DictReader(file))
    told = answer()["rows"]
    for row, cells in zip(told, published, strict=True):
        for name, cell in cells.items():
            number = float(cell) if cell and name in NUMBERS else None
            assert row[name] == (number if name in NUMBERS else cell)
    for row in told:
        assert row["used"] is (row["reason"] is None)
        if row["used"]:
            low, high = row["predicted_interval"]
            assert low < row["predicted_tflops_per_gpu"] < high
            assert row["predicted_memory_bytes"] > 0
            ratio = row["predicted_tflops_per_gpu"] / row["published_tflops_per_gpu"]
            assert row["error"] == pytest.approx(ratio - 1)
    assert 0 < answer()["median_abs_error"] < answer()["p90_abs_error"]
    assert {"dense", "moe"} == set(answer()["groups"]["kind"])


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("sharding", "fsdp", "sharding 'fsdp' is not modelled"),
        ("task", "lora", "task 'lora' is not modelled"),
        ("precision", "nvfp4", "precision 'nvfp4' is not modelled"),
        ("fabric", "EFA", "on EFA"),
    ],
)
def test_what_is_not_modelled_is_not_scored(column: str, value: str, reason: str) -> None:
    found = [row for row in answer()["rows"] if row[column] == value]
    assert found
    assert all(not row["used"] and row["reason"] for row in found)
    assert any(reason in row["reason"] for row in found)


def test_no_prediction_looks_at_what_was_published(tmp_path: Path) -> None:
    kept = [row for row in rows() if row.line % 7 == 0]
    other = tmp_path / "other.csv"
    with other.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0].cells))
        writer.writeheader()
        for row in kept:
            wrong = {name: "7" if row.cells[name] else "" for name in PUBLISHED}
            writer.writerow({**row.cells, **wrong})
    predicted = ("predicted_tflops_per_gpu", "predicted_interval", "predicted_memory_bytes")
    by_line = {row.line: told for row, told in zip(rows(), answer()["rows"], strict=True)}
    for row, told in zip(kept, validate(other)["rows"], strict=True):
        assert [told[name] for name in predicted] == [by_line[row.line][name] for name in predicted]


def test_what_a_card_cannot_do_is_that_row_s_reason(tmp_path: Path) -> None:
    of_fp8 = next(row for row in rows() if row.line == 53)
    file = tmp_path / "rows.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(of_fp8.cells))
        writer.writeheader()
        writer.writerow({**of_fp8.cells, "gpu": "A100"})
    [told] = validate(file)["rows"]
    assert not told["used"]
    assert "A100 has no matrix products in it" in told["reason"]


def test_a_missing_column_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("model,gpu\nllama3-8b,H100\n")
    with pytest.raises(ParallelError, match="no column gpus, seq_len, gbs") as caught:
        validate(file)
    assert "\n" not in str(caught.value)


def write_row(path: Path, count: int = 1, **cells: str) -> Path:
    """Write a published row with other cells, several times."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows()[0].cells))
        writer.writeheader()
        writer.writerows([{**rows()[0].cells, **cells}] * count)
    return path


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_file_without_rows_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, out, err = command("plan", "--validate", write_row(tmp_path / "f.csv", 0), *words)
    assert (code, out) == (2, "")
    assert "f.csv: no rows under the heading" in err and err.count("\n") == 1


@pytest.mark.parametrize("value", ["0", "1e300", "-10", "1e-30"])
def test_a_speed_that_cannot_be_is_one_rule_that_names_the_file(tmp_path: Path, value: str) -> None:
    file = write_row(tmp_path / "f.csv", step_s=value)
    with pytest.raises(ParallelError) as caught:
        validate(file)
    assert str(caught.value) == (
        f"{file}: line 2, step_s = {value!r}: not a number from 1e-09 to 1e+09: mend or empty the"
        " cell"
    )


def test_the_text_says_why_rows_are_not_scored(tmp_path: Path) -> None:
    code, out, _ = command("plan", "--validate", write_row(tmp_path / "f.csv", 2, gpu="Abacus"))
    assert code == 0
    assert "2 of 2 rows not scored: gpu 'Abacus': no such card" in out


@pytest.mark.parametrize(
    ("kind", "median", "p90"), [("dense", 0.05, 0.15), ("moe", 0.10, 0.25)], ids=["dense", "moe"]
)
def test_layouts_that_no_fit_saw(kind: str, median: float, p90: float) -> None:
    """The shipped parameters were fitted on half of the layouts; these are the other half."""
    told = summary(results(), kind, held_out=True)
    assert told.layouts >= 15
    assert told.median <= median
    assert told.p90 <= p90


@pytest.mark.parametrize("grouping", list(GROUPINGS))
@pytest.mark.parametrize(
    ("kind", "median", "p90"), [("dense", 0.05, 0.15), ("moe", 0.10, 0.25)], ids=["dense", "moe"]
)
def test_whole_families_and_whole_cards_that_no_fit_saw(
    grouping: str, kind: str, median: float, p90: float
) -> None:
    told = summary(cross_validated(grouping), kind)
    assert told.layouts == summary(results(), kind).layouts
    assert told.median <= median
    assert told.p90 <= p90


@pytest.mark.parametrize("kind", ["dense", "moe"])
@pytest.mark.parametrize("grouping", list(GROUPINGS))
def test_intervals_hold_what_they_say(grouping: str, kind: str) -> None:
    assert 0.7 <= summary(cross_validated(grouping), kind).covered <= 0.9


def test_intervals_of_layouts_that_no_fit_saw_hold_what_they_say() -> None:
    for kind in ("dense", "moe"):
        assert 0.7 <= summary(results(), kind, held_out=True).covered <= 0.9


def test_published_peaks_of_memory_are_near() -> None:
    whole = memory_summary(results())
    assert whole["layouts"] >= 14
    assert whole["median_abs_error"] < 0.01
    nvidias = [r for r in results() if "NVIDIA" in (r.row.text("source") or "")]
    assert memory_summary(nvidias)["median_abs_error"] < 0.1
    assert memory_summary([])["median_abs_error"] is None


def test_energy_of_the_measured_pretraining_run() -> None:
    """GPT-3 175B on 512 H100: AC at the nodes, MLPerf v4.0 (SMC), with the calibrated step."""
    told = [r for r in results() if r.row.text("node_joule_per_token")]
    assert len(told) == 1
    energy = StepPredictor().node_joules_per_token(told[0].jobs[0], cooling="liquid")
    published = told[0].row.number("node_joule_per_token")
    assert published is not None
    assert abs(math.log(energy.value / published)) < 0.1
    assert energy.low < published < energy.high


def test_the_page_on_accuracy_says_what_is_computed_here() -> None:
    page = Path(__file__).parents[3] / "docs" / "explanation" / "planner_accuracy.md"
    lines = [line.split("|")[1:-1] for line in page.read_text().splitlines() if line[:2] == "| "]
    told = {cells[0].strip(): [cell.strip(" %") for cell in cells[1:]] for cells in lines}
    for kind, name in (("dense", "dense"), ("moe", "sparse")):
        for group, each in {
            "layouts that no fit saw": summary(results(), kind, held_out=True),
            "all": summary(results(), kind),
            "its family of models left out": summary(cross_validated("family"), kind),
            "its card left out": summary(cross_validated("card"), kind),
        }.items():
            computed = [each.layouts, each.rows, *(100 * s for s in
                        (each.median, each.p90, each.covered))]  # fmt: skip
            printed = [float(cell) for cell in told[f"{name}, {group}"]]
            assert printed == pytest.approx(computed, abs=0.6), f"{name}, {group}"
