"""The page of `moe plan --html`: offline, its figures drawn in a real browser."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.planning.answer import answer
from benchmarks.planning.budget import RunRequest, run_plan
from benchmarks.planning.scaling import scaling_curves
from benchmarks.report.plan_page import write_plan_page
from tests.benchmarks.planning.jobs import planner

FIGURES = ["front", "time", "memory", "timeline", "energy", "scaling"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plans = planner("llama3-8b", 16, global_batch_size=64)
    plans.job = replace(plans.job, name="<b>llama</b>")
    found = answer(plans, "pp=4,vpp=2,tp=2", 1)
    searched = answer(plans, None, 3)
    run = run_plan(RunRequest(target_tokens=1e11), found.best, plans.job.energy, None)
    whole = replace(
        found, found=searched.found, front=searched.front, run=run,
        scaling=scaling_curves(plans, (8, 16)),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("page") / "plan.html"
    write_plan_page(path, plans, whole)
    return path


def test_the_page_holds_every_figure_and_needs_no_network(page: Path) -> None:
    text = page.read_text()
    data = json.loads(re.search(r'id="data" type="application/json">(.*?)</script>', text)[1])  # type: ignore[index]
    figures = {one["id"]: one for one in data["figures"]}
    assert list(figures) == FIGURES
    stages = figures["memory"]["traces"][0]["x"]
    assert stages == ["0", "1", "2", "3"]
    forward, backward = figures["timeline"]["traces"]
    # 32 micro-batches are more than three groups of four.
    assert len(forward["x"]) == len(backward["x"]) == 12 * 2 * 4
    assert all(length > 0 for length in forward["x"])
    for trace in figures["scaling"]["traces"]:
        assert all(above > 0 for above in trace["error_y"]["array"])
    assert "&lt;b&gt;llama" in text
    assert "<b>llama" not in text
    assert not re.search(r'(src|href)="https?:', text)


@pytest.mark.needs("chromium")
def test_all_figures_are_drawn_and_the_console_is_silent(browser: Any, page: Path) -> None:
    browser.set_window_size(1280, 1000)
    browser.get(page.as_uri())
    for name in FIGURES:
        WebDriverWait(browser, 30).until(
            lambda b, name=name: b.find_elements(By.CSS_SELECTOR, f"#plot-{name} svg.main-svg")
        )
    bars = browser.find_elements(By.CSS_SELECTOR, "#plot-timeline .bars .point path")
    assert len(bars) == 2 * 12 * 2 * 4
    browser.find_element(By.ID, "theme").click()
    assert browser.get_log("browser") == []
