"""`moe bench build`: all tools make the same tokens of the same text, and the ratio is theirs."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.bench_data import build
from benchmarks.errors import BenchmarkError

PLAN = build.BuildPlan(num_bytes=60_000, vocab_size=400, workers=1, repeats=1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number}.txt").write_text(f"Document {number} has some words, or so. " * 15)
    (folder / "copy.txt").write_text((folder / "0.txt").read_text())  # peers keep equal texts
    return folder


def test_tools_agree_and_ratios_follow_from_their_rows(text: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    result = build.measure([text], PLAN, tmp_path / "work")
    rows = {row["tool"]: row for row in result["tools"]}
    assert "moescale" in rows and set(rows) | set(result["absent"]) == set(build.TOOLS)
    assert len({row["tokens"] for row in rows.values()}) == 1
    for key, by in (("tokens_per_s", "by_wall_time"), ("tokens_per_cpu_s", "by_processor_time")):
        peers = [row[key]["median"] for name, row in rows.items() if name != "moescale"]
        expected = rows["moescale"][key]["median"] / max(peers) if peers else None
        assert result["over_best_peer"][by] == pytest.approx(expected)
    case = {"megabytes": 0.06, "workers": 1}
    shown = io.StringIO()
    for table in build.build_tables([{"case": case, "result": result}]):
        Console(file=shown, width=150).print(table)
    assert "times the best other" in shown.getvalue() and "moescale" in shown.getvalue()
    json.dumps(result)


def test_too_little_text_is_one_line(text: Path, tmp_path: Path) -> None:
    plan = build.BuildPlan(num_bytes=10**9, vocab_size=400, workers=1, repeats=1)
    with pytest.raises(BenchmarkError, match=r"0\.1 MB of text: name more, or ask for fewer"):
        build.measure([text], plan, tmp_path)


def test_a_failing_tool_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"^moescale: .*no such file"):
        build._timed("moescale", tmp_path / "none.jsonl", tmp_path / "none.json", 1)
