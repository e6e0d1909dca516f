"""The page of `moe fit --html`: what is drawn, what is left out, and a real browser draws it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.errors import BenchmarkError
from benchmarks.laws.compare import fit_laws
from benchmarks.laws.points import Points
from benchmarks.laws.registry import LAWS
from benchmarks.report.laws.page import write_law_page
from tests.support.law_points import made_points, true_values

BUDGETS, EXPERTS = np.geomspace(1e18, 1e20, 3), (1.0, 4.0, 16.0)
SHARES = (0.3, 0.6, 1.0, 1.7, 3.0)


def iso_flop_points(noise: float = 0.003) -> Points:
    """Return an iso-FLOP sweep of sparse models by Ludziejewski's law."""
    rows = np.array([
        (size, budget / 6 / size, experts, size * (4 + 9 * experts) / 13, 1.0)
        for budget in BUDGETS for experts in EXPERTS
        for size in np.sqrt(budget / 120) * np.array(SHARES)
    ])  # fmt: skip
    names = ("active_parameters", "tokens", "experts", "parameters", "top_k")
    columns = dict(zip(names, rows.T, strict=True))
    law = LAWS["ludziejewski"]
    drawn = np.random.default_rng(0).standard_normal(len(rows))
    columns["loss"] = law.predict(columns, true_values(law)) * np.exp(noise * drawn)
    return Points("made", columns, {}, tuple(range(2, len(rows) + 2)))


def written(path: Path, points: Points, *names: str) -> tuple[str, dict[str, Any]]:
    """Write a page; return its text and its figures by id."""
    write_law_page(path, points, fit_laws(points, names, resamples=20))
    text = path.read_text()
    found = re.search(r'id="data" type="application/json">(.*?)</script>', text)
    assert found is not None
    return text, {one["id"]: one for one in json.loads(found[1])["figures"]}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "law.html"
    written(path, iso_flop_points(), "ludziejewski", "chinchilla")
    return path


def named(traces: list[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    return [trace for trace in traces if trace["meta"]["role"] == role]


def test_a_sparse_law_has_every_figure(tmp_path: Path) -> None:
    text, figures = written(tmp_path / "law.html", iso_flop_points(), "ludziejewski")
    names = ["predicted", "residuals-active_parameters", "residuals-tokens", "residuals-experts",
             "isoflop", "frontier", "sizes", "isoloss", "leverage"]  # fmt: skip
    assert sorted(figures) == sorted(f"law0-{name}".replace("_", "-") for name in names)
    assert "Left out:" not in text
    assert not re.search(r'(src|href)="https?:', text)
    parabolas = figures["law0-isoflop"]["traces"]
    assert len(named(parabolas, "line")) == len(BUDGETS)
    for line, star, runs in zip(
        named(parabolas, "line"), named(parabolas, "star"), named(parabolas, "point"), strict=True
    ):
        assert star["y"][0] <= min(line["y"]) * (1 + 1e-6)
        assert min(line["x"]) <= min(runs["x"])
        assert len(runs["x"]) == len(SHARES)
    for trace in figures["law0-leverage"]["traces"]:
        assert trace["x"] == [1, 4, 16]
        assert trace["y"][0] == pytest.approx(1, abs=1e-3)
        assert trace["y"] == sorted(trace["y"])


def test_the_frontier_s_band_holds_its_line_and_lies_below_the_runs(tmp_path: Path) -> None:
    _, figures = written(tmp_path / "law.html", iso_flop_points(), "ludziejewski")
    traces = figures["law0-frontier"]["traces"]
    low, high = named(traces, "edge")[0]["y"], named(traces, "band")[0]["y"]
    line = [*named(traces, "line")[0]["y"], *named(traces, "beyond")[0]["y"][1:]]
    inside = [a <= y <= b for a, y, b in zip(low, line, high, strict=True)]
    assert sum(inside) >= len(inside) - 2
    assert line == sorted(line, reverse=True)
    assert min(named(traces, "cloud")[0]["y"]) > line[-1]


def test_figures_that_cannot_be_drawn_are_named_with_the_reason(tmp_path: Path) -> None:
    text, figures = written(tmp_path / "law.html", made_points("clark", 0.003), "clark")
    assert {"law0-predicted", "law0-frontier", "law0-leverage"} <= set(figures)
    assert "law0-isoflop" not in figures
    assert "iso-FLOP parabolas: the law has no size and tokens to exchange" in text
    text, figures = written(tmp_path / "law.html", made_points("ling", 0.003), "ling")
    assert "law0-leverage" in figures
    assert "does not tell sizes from FLOPs alone" in text
    text, figures = written(tmp_path / "law.html", made_points("chinchilla", 0.003), "chinchilla")
    assert "no column of the law tells a dense model from a sparse one" in text


@pytest.mark.parametrize("name", ["abnar", "krajewski", "tencent", "precision"])
def test_other_laws_have_pages(name: str, tmp_path: Path) -> None:
    _, figures = written(tmp_path / "law.html", made_points(name, 0.003), name)
    assert "law0-predicted" in figures
    contours = [f["traces"][0] for i, f in figures.items() if i.endswith("isoloss")]
    assert all(len(one["z"]) == len(one["y"]) for one in contours)
    assert bool(contours) == (name in {"abnar", "krajewski"})


def test_many_points_are_thinned_and_that_is_said(tmp_path: Path) -> None:
    design = {"parameters": np.geomspace(1e7, 1e10, 60), "tokens": np.geomspace(1e9, 1e12, 40)}
    points = made_points("chinchilla", 0.003, design=design)
    text, figures = written(tmp_path / "law.html", points, "chinchilla")
    assert "1,000 of 2,400 points are drawn." in text
    dots = named(figures["law0-predicted"]["traces"], "point")
    assert sum(len(one["x"]) for one in dots) == 1000


def test_laws_are_compared_and_structure_is_said(page: Path) -> None:
    text = page.read_text()
    assert "Of 2 laws ludziejewski describes the points best (AICc)" in text
    assert "The law&#39;s form misses something: residuals change with experts" in text


def test_texts_of_a_file_are_no_markup(tmp_path: Path) -> None:
    points = made_points("chinchilla", 0.003)
    hostile = Points("<script>x</script>", points.columns, {}, points.rows)
    text, _ = written(tmp_path / "law.html", hostile, "chinchilla")
    assert "&lt;script&gt;x" in text


def test_a_page_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    fits = fit_laws(made_points("chinchilla", 0.003), ["chinchilla"], resamples=20)
    with pytest.raises(BenchmarkError, match="--html"):
        write_law_page(tmp_path, made_points("chinchilla", 0.003), fits)


@pytest.mark.needs("chromium")
def test_all_figures_are_drawn_on_a_phone_and_the_console_is_silent(
    browser: Any, page: Path
) -> None:
    browser.set_window_size(500, 1000)
    browser.get(page.as_uri())
    ids = [node.get_attribute("id") for node in browser.find_elements(By.CLASS_NAME, "plot")]
    assert len(ids) == 9 + 7
    for name in ids:
        WebDriverWait(browser, 60).until(
            lambda b, name=name: b.find_elements(By.CSS_SELECTOR, f"#{name} svg.main-svg")
        )
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )
    browser.find_element(By.ID, "theme").click()
    assert browser.get_log("browser") == []
