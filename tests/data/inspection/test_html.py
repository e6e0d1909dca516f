"""The page of a store: every number the manifest holds, and plots a browser draws."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from data.inspection.html import plots, write_page
from data.inspection.summary import summary
from data.store.reader import Store
from tests.support.store_helpers import build


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("page")
    lines = [f"{'word ' * (n % 40 + 1)} <b>{n}</b> jane@example.com" for n in range(200)]
    text = "\n".join(json.dumps({"text": line}) for line in (*lines, lines[0], ""))
    (root / "in.jsonl").write_text(text)
    clean = {"personal_data": "mask", "tag_language": True}
    return build(root / "store", root / "in.jsonl", clean=clean, canaries={"count": 1})


class Cells(HTMLParser):
    """Texts of a page's table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "td":
            self._inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


def test_every_count_is_in_its_table(store: Store, tmp_path: Path) -> None:
    write_page(store.path, store.manifest, tmp_path / "deep" / "page.html")
    page = (tmp_path / "deep" / "page.html").read_text()
    reader = Cells()
    reader.feed(page)
    rows = list(zip(reader.cells, reader.cells[1:], strict=False))
    for name, count in {**store.manifest.counts, **store.manifest.dropped}.items():
        assert (name, f"{count:,}") in rows
    for canary in store.manifest.canaries:
        assert (canary.text, str(canary.repeats)) in rows
    assert (
        "http://" not in page.split("<script>")[0] and "https://" not in page.split("<script>")[0]
    )


def test_plots_show_the_histograms(store: Store) -> None:
    values = summary(store.manifest)
    drawn = {plot["id"]: plot for plot in plots(values)}
    assert {"sources", "characters", "tokens", "copies", "distinct_words"} < set(drawn)
    assert {"dropped", "found", "language"} < set(drawn)
    for name, bins in values["histograms"].items():
        assert list(drawn[name]["data"][0]["y"]) == list(bins.values())
    assert sum(trace["y"][0] for trace in drawn["sources"]["data"]) == store.manifest.tokens


def test_a_browser_draws_every_plot(browser: Any, store: Store, tmp_path: Path) -> None:
    write_page(store.path, store.manifest, tmp_path / "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    frames = browser.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(frames) == len(plots(summary(store.manifest)))
    for frame in frames:
        bars = frame.find_elements(By.CSS_SELECTOR, ".bars .point path")
        assert bars, frame.get_attribute("id")
    assert browser.get_log("browser") == []


def test_a_dark_and_narrow_screen(browser: Any, store: Store, tmp_path: Path) -> None:
    write_page(store.path, store.manifest, tmp_path / "page.html")
    size = browser.get_window_size()
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False},
        )
        dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        browser.get((tmp_path / "page.html").as_uri())
        wide = "return document.documentElement.scrollWidth"
        assert browser.execute_script(wide) <= 400
        body = browser.find_element(By.TAG_NAME, "body")
        assert "20, 25, 31" in body.value_of_css_property("background-color")
        label = browser.find_element(By.CSS_SELECTOR, ".plot .xtick text")
        assert "227, 232, 237" in label.value_of_css_property("fill")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.set_window_size(size["width"], size["height"])
