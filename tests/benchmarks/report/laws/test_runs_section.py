"""Runs beside a law: `moe report --law`, and the page of `moe predict --html`."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import fit_law_to
from benchmarks.laws.fitted_law import read_fit
from benchmarks.laws.predict import predict
from benchmarks.laws.run_points import run_points
from benchmarks.laws.tables import prediction_table
from benchmarks.report.laws.page import write_prediction_page
from benchmarks.report.laws.runs_section import runs_section
from benchmarks.report.write import write_report
from moe.runs.reader import read_run
from tests.support.law_points import made_points
from tests.support.synthetic_runs import make_run


def written_fit(path: Path, name: str) -> str:
    """Write a law fitted to points made from it; return the file."""
    document = fit_law_to(made_points(name, 0.003), name, resamples=20).document
    path.write_text(json.dumps(document))
    return str(path)


@pytest.fixture(scope="module")
def law(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written_fit(tmp_path_factory.mktemp("law") / "law.json", "chinchilla")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [
        make_run(root / "dense <b>", sparse=False, final_loss=4.4),
        make_run(root / "sparse", sparse=True, final_loss=4.2),
    ]


def test_a_run_s_prediction_is_the_law_s_at_its_sizes(law: str, runs: list[Path]) -> None:
    found = runs_section(law, [read_run(path) for path in runs])
    fitted = read_fit(Path(law))
    for path, one in zip(runs, found.content["runs"], strict=True):
        run = read_run(path)
        values = fitted.values
        expected = (
            values["E"]
            + values["A"] / run.total_parameters ** values["alpha"]
            + values["B"] / run.tokens ** values["beta"]
        )
        assert one["predicted_loss"] == pytest.approx(expected)
        assert one["measured_loss"] == run.record["final_loss"]
        assert one["error"] == pytest.approx(expected / one["measured_loss"] - 1)
        assert one["interval"][0] < expected < one["interval"][1]
        assert one["sizes"]["flops"] == 6 * run.total_parameters * run.tokens
        assert one["in_fit"] is False
        assert "parameters" in one["beyond"]
    assert "2 runs that it was not fitted to" in found.content["finding"]
    assert "sparse points count as dense" in found.content["runs_warnings"][0]


def test_runs_are_marked_in_the_figures(law: str, runs: list[Path]) -> None:
    found = runs_section(law, [read_run(path) for path in runs])
    figures = {one["id"]: one for one in found.figures}
    for name in ("predicted", "frontier", "isoloss"):
        marks = [t for t in figures[f"law0-{name}"]["traces"] if t["meta"]["role"] == "mark"]
        assert [len(trace["x"]) for trace in marks] == [2], name
    (mark,) = (t for t in figures["law0-predicted"]["traces"] if t["meta"]["role"] == "mark")
    assert mark["x"] == [4.4, 4.2]
    assert "&lt;b&gt;" in mark["text"][0]


def test_runs_of_the_fit_are_told_from_others(tmp_path: Path) -> None:
    paths = [
        make_run(tmp_path / f"run{n}", sparse=False, steps=20 * n, final_loss=5 - n / 10,
                 changes={"ledger": {"total_parameters": 10**6 * n, "active_parameters": 10**6 * n,
                                     "training_flops_per_token": 6e6 * n,
                                     "bf16_weight_bytes": 1, "bf16_training_state_bytes": 1}})
        for n in range(2, 11)
    ]  # fmt: skip
    read = [read_run(path) for path in paths]
    file = tmp_path / "law.json"
    form = "E + A / parameters**alpha"
    file.write_text(json.dumps(fit_law_to(run_points(read[:8]), form, resamples=20).document))
    content = runs_section(str(file), read).content
    assert [one["in_fit"] for one in content["runs"]] == [True] * 8 + [False]
    assert "1 run that it was not fitted to" in content["finding"]
    assert "8 runs of its own points" in content["finding"]


def test_runs_that_a_law_cannot_tell_are_left_out_with_the_reason(
    runs: list[Path], tmp_path: Path
) -> None:
    unfinished = make_run(tmp_path / "u", sparse=True, changes={"final_loss": None})
    content = runs_section("krajewski", [read_run(p) for p in (*runs, unfinished)]).content
    assert content["runs"] == []
    assert any("krajewski" in reason for reason in content["runs_left_out"])
    assert any("no final held-out loss" in reason for reason in content["runs_left_out"])
    assert content["finding"] == "The law predicts no run here."
    assert any("the law comes without its points" in reason for reason in content["left_out"])


def test_a_damaged_law_is_one_error(law: str, runs: list[Path], tmp_path: Path) -> None:
    document = json.loads(Path(law).read_text())
    damaged = tmp_path / "damaged.json"
    for part in ("residuals", "extrapolation", "identifiability"):
        damaged.write_text(json.dumps({**document, part: 1}))
        with pytest.raises(BenchmarkError, match=r"damaged\.json: damaged"):
            runs_section(str(damaged), [read_run(runs[0])])


@pytest.fixture(scope="module")
def report(law: str, runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(runs, out, law=law)
    return out


def test_the_report_s_files_hold_the_predictions(report: Path, runs: list[Path]) -> None:
    content = json.loads((report / "report.json").read_text())
    assert len(content["law"]["runs"]) == 2
    rows = list(csv.DictReader((report / "figures/law.csv").read_text().splitlines()))
    assert [float(row["measured_loss"]) for row in rows] == [4.4, 4.2]
    assert "## Beside a scaling law" in (report / "report.md").read_text()
    write_report(runs, report.parent / "without")
    assert json.loads((report.parent / "without/report.json").read_text())["law"] is None


@pytest.mark.needs("chromium")
def test_the_report_draws_the_law_in_a_browser(browser: Any, report: Path) -> None:
    browser.get((report / "report.html").as_uri())
    WebDriverWait(browser, 60).until(
        lambda b: b.find_element(By.TAG_NAME, "html").get_attribute("data-drawn") == "yes"
    )
    plots = browser.find_elements(By.CSS_SELECTOR, "[id^='plot-law0-']")
    assert len(plots) >= 6
    assert all(plot.find_elements(By.CSS_SELECTOR, "svg.main-svg") for plot in plots)
    browser.find_element(By.ID, "theme").click()
    assert browser.get_log("browser") == []


def test_a_prediction_s_page_marks_the_best_model(law: str, tmp_path: Path) -> None:
    fitted, path = read_fit(Path(law)), tmp_path / "best.html"
    found = predict(fitted, 1e22)
    write_prediction_page(path, fitted, found, [prediction_table(found)])
    match = re.search(r'id="data" type="application/json">(.*?)</script>', path.read_text())
    assert match is not None
    figures = {one["id"]: one for one in json.loads(match[1])["figures"]}
    (star,) = (t for t in figures["law0-frontier"]["traces"] if t["meta"]["role"] == "star")
    assert star["x"] == [pytest.approx(1e22, rel=1e-3)]
    assert star["y"] == [pytest.approx(found["loss"], rel=1e-5)]
