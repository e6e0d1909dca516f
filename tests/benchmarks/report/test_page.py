"""The report in a real browser: plots drawn, filter and hover work, nothing on the console."""

import base64
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.report.write import write_report
from tests.support.synthetic_runs import make_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    runs = [make_run(root / "dense", sparse=False, final_loss=4.4, tokens_per_s=9800)]
    runs += [
        make_run(root / f"sparse-seed{seed}", sparse=True, seed=seed, final_loss=4.2 + seed / 50)
        for seed in range(3)
    ]
    return write_report(runs, root / "report").html


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    browser.set_window_size(1280, 1000)
    media(browser)
    browser.get(page.as_uri())
    drawn(browser)
    return browser


def media(browser: Any, scheme: str = "light", kind: str = "") -> None:
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})


def drawn(browser: Any) -> None:
    WebDriverWait(browser, 30).until(
        lambda b: b.find_element(By.TAG_NAME, "html").get_attribute("data-drawn") == "yes"
    )


def bars(browser: Any, plot: str) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, f"#plot-{plot} .bars .point path"))


def test_plots_are_drawn_and_the_console_is_silent(opened: Any) -> None:
    plots = opened.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(plots) == 17
    for plot in plots:
        assert plot.find_elements(By.CSS_SELECTOR, "svg.main-svg"), plot.get_attribute("id")
    lines = opened.find_elements(By.CSS_SELECTOR, "#plot-loss-tokens .scatterlayer .js-line")
    assert len(lines) == 4
    assert bars(opened, "tokens-per-s") == 2
    for name in ("experts", "sources", "coactivation"):
        assert opened.find_elements(By.CSS_SELECTOR, f"#plot-load-{name} .heatmaplayer image")
    assert opened.get_log("browser") == []


def test_a_filter_hides_a_model_everywhere(opened: Any) -> None:
    button = opened.find_element(By.CSS_SELECTOR, ".filters button")
    assert "dense" in button.text
    button.click()
    WebDriverWait(opened, 10).until(lambda b: bars(b, "tokens-per-s") == 1)
    lines = opened.find_elements(By.CSS_SELECTOR, "#plot-loss-tokens .scatterlayer .js-line")
    assert len(lines) == 3
    parts = "return [...document.querySelectorAll('#plot-phases .bars .point path')].length"
    assert opened.execute_script(parts) == 1
    heads = opened.find_elements(By.CSS_SELECTOR, "#table ~ .scroll thead th[data-group]")
    assert [head.is_displayed() for head in heads[:2]] == [False, True]
    button.click()
    WebDriverWait(opened, 10).until(lambda b: bars(b, "tokens-per-s") == 2)


def test_hover_shows_the_number_with_its_kind(opened: Any) -> None:
    bar = opened.find_element(By.CSS_SELECTOR, "#plot-energy-per-token .bars .point path")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", bar)
    ActionChains(opened).move_to_element(bar).pause(0.3).perform()
    label = WebDriverWait(opened, 10).until(
        lambda b: b.find_element(By.CSS_SELECTOR, "#plot-energy-per-token .hovertext")
    )
    assert "dense" in label.text
    assert "modelled" in label.text


def test_log_axis_and_theme(opened: Any) -> None:
    axis = "return document.getElementById('plot-loss-tokens')._fullLayout.xaxis.type"
    assert opened.execute_script(axis) == "linear"
    opened.find_element(By.CSS_SELECTOR, "[data-figure='loss-tokens'][data-log='x']").click()
    WebDriverWait(opened, 10).until(lambda b: b.execute_script(axis) == "log")
    ink = "return document.getElementById('plot-loss-tokens')._fullLayout.font.color"
    light = opened.execute_script(ink)
    opened.find_element(By.ID, "theme").click()
    WebDriverWait(opened, 10).until(lambda b: b.execute_script(ink) != light)
    assert opened.get_log("browser") == []


def test_dark_is_taken_from_the_system(opened: Any, page: Path) -> None:
    media(opened, "dark")
    opened.get(page.as_uri())
    drawn(opened)
    assert opened.find_element(By.TAG_NAME, "html").get_attribute("data-theme") == "dark"


def test_a_phone_needs_no_sideways_scrolling(opened: Any, page: Path) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened.get(page.as_uri())
        drawn(opened)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 390
        widths = [plot.size["width"] for plot in opened.find_elements(By.CSS_SELECTOR, ".plot")]
        assert all(300 <= width <= 390 for width in widths)
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_widest_table_fits_or_says_that_it_goes_on(opened: Any, page: Path) -> None:
    opened.set_window_size(1400, 1000)
    opened.get(page.as_uri())
    drawn(opened)
    widths = (
        "const box = document.querySelector('table.wide').parentElement;"
        "return [box.scrollWidth, box.clientWidth]"
    )
    needed, given = opened.execute_script(widths)
    assert needed <= given
    opened.set_window_size(600, 1000)
    needed, given = opened.execute_script(widths)
    assert needed > given
    shadow = "return getComputedStyle(document.querySelector('table.wide').parentElement)"
    assert opened.execute_script(f"{shadow}.backgroundImage").count("gradient") == 4


def test_typing_a_name_filters_many_models(browser: Any, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"m{n}", sparse=n % 2 > 0, steps=40 + n) for n in range(8)]
    browser.get(write_report(runs, tmp_path / "report").html.as_uri())
    drawn(browser)
    assert bars(browser, "tokens-per-s") == 8
    browser.find_element(By.ID, "search").send_keys("m3")
    WebDriverWait(browser, 10).until(lambda b: bars(b, "tokens-per-s") == 1)
    browser.find_element(By.CSS_SELECTOR, "[data-kind='dense']").click()
    WebDriverWait(browser, 10).until(lambda b: bars(b, "tokens-per-s") == 4)
    front = "return document.getElementById('plot-pareto').data[0].x.length"
    assert 1 <= browser.execute_script(front) <= 4
    assert browser.get_log("browser") == []


def test_labels_of_bars_are_whole(opened: Any, page: Path) -> None:
    """A label that does not fit into its bar stands after it, and the axis makes room."""
    for width in (1280, 390):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            opened.get(page.as_uri())
            drawn(opened)
            for plot in opened.find_elements(By.CSS_SELECTOR, ".plot.bars"):
                right = plot.rect["x"] + plot.rect["width"]
                for label in plot.find_elements(By.CSS_SELECTOR, ".textpoint text, .bartext"):
                    assert label.rect["x"] + label.rect["width"] <= right + 1, label.text
        finally:
            opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_print_is_light_and_a_few_pages(opened: Any, page: Path) -> None:
    media(opened, "dark")
    opened.get(page.as_uri())
    drawn(opened)
    pdf = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") <= 9
    # Back on the screen the reader's theme returns.
    assert opened.find_element(By.TAG_NAME, "html").get_attribute("data-theme") == "dark"
