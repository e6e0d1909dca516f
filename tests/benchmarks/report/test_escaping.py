"""Hostile names in a report: shown, not obeyed, whether by browser, spreadsheet or terminal."""

import csv
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.report.escaping import markdown_text, plot_text, spreadsheet_text
from benchmarks.report.write import ReportPaths, write_report
from data.plain_text import printable
from moescale import app
from tests.support.synthetic_runs import make_run, measurement

NAME = "=cmd|'/C calc'!A0<script>alert(1)</script>[x](javascript:1)`\x1b]0;own\x07\u202e\ud800\n# h"
REASON = "@SUM(1+9)*<img src=x onerror=1>\x1b[2J|"


def hostile_run(root: Path) -> Path:
    energy = {"source": "\x1b[31m<b>rapl", "kind": "measured", "note": REASON,
              "total": measurement(None, "J", reason=REASON)}  # fmt: skip
    return make_run(
        root / "a", sparse=True, steps=4, changes={"name": NAME, "command": REASON,
                                                   "energy": energy},
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    root = tmp_path_factory.mktemp("hostile")
    return write_report([hostile_run(root), make_run(root / "b", sparse=False, steps=4)],
                        root / "out")  # fmt: skip


def test_no_cell_of_a_csv_is_a_formula(report: ReportPaths) -> None:
    texts = [path.read_text() for path in report.figures.glob("*.csv")]
    assert any("cmd|" in text for text in texts)
    for text in texts:
        for row in csv.reader(text.splitlines()):
            for cell in row:
                is_number = cell.replace("-", "").replace("+", "").replace(".", "")[:1].isdigit()
                assert is_number or cell.lstrip()[:1] not in ("=", "+", "-", "@")


def test_no_text_is_a_tag_or_a_link(report: ReportPaths) -> None:
    markdown = report.markdown.read_text()
    assert "&lt;script&gt;" in markdown
    assert "<" not in markdown
    assert "[x](" not in markdown.replace("\\[", "")
    page = report.html.read_text()
    assert "<script>alert" not in page
    assert "<img" not in page.split("<script>", maxsplit=1)[0]
    data = page.split('id="data">', maxsplit=1)[1].split("</script>", maxsplit=1)[0]
    drawn = json.dumps(json.loads(data)["figures"])
    assert "&lt;script&gt;" in drawn
    assert "<script>" not in drawn


def test_no_character_steers_a_terminal(report: ReportPaths, tmp_path: Path) -> None:
    files = [report.html, report.markdown, report.json, *report.figures.glob("*.csv")]
    run = hostile_run(tmp_path)
    outputs = [
        CliRunner().invoke(app, [*command, str(run)]).output
        for command in (["report", "-o", str(tmp_path / "out")], ["energy"], ["carbon"])
    ]
    assert all("alert(1)" in outputs[n] for n in (0, 2))
    assert "SUM(1+9)" in outputs[1]
    for text in [*(path.read_text() for path in files[1:]), *outputs]:
        assert text == "".join(c for c in text if c == "\n" or printable(c) == c)
    assert "\x1b" not in files[0].read_text()


@pytest.mark.parametrize(
    ("value", "shown"),
    [("=1", "'=1"), (" \t@x", "'  @x"), ("-x", "'-x"), ("\uff1d1", "'\uff1d1"), ("a=1", "a=1"),
     (-1.5, -1.5), (None, None), (True, True)],
)  # fmt: skip
def test_spreadsheet_text(value: object, shown: object) -> None:
    assert spreadsheet_text(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a|b\nc", "a\\|b c"), ("# h", "\\# h"), ("- x", "\\- x"), ("<b>", "&lt;b&gt;"),
     ("my_run-1", "my_run-1"), (1.5, "1.5"), ("a*b*", "a\\*b\\*")],
)  # fmt: skip
def test_markdown_text(value: object, shown: str) -> None:
    assert markdown_text(value) == shown


def test_plots_take_no_tags_and_no_templates() -> None:
    assert plot_text("<b>%{x}") == "&lt;b&gt;%&#123;x}"


def test_a_report_lies_below_any_name_of_the_file_system(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    runs = [str(make_run(folder / name, sparse=name == "a", steps=4)) for name in "ab"]
    done = CliRunner().invoke(app, ["report", *runs, "-o", str(folder / "out")])
    assert done.exit_code == 0, done.output
    assert list((folder / "out/figures").glob("*.parquet"))
    assert json.loads((folder / "out/report.json").read_text())["title"] == "a and b"
