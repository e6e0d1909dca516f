"""`moe bench build`: all tools make the same tokens of the same text, and the ratio is theirs."""

import json
from pathlib import Path

import pytest

from benchmarks.bench_data import build
from benchmarks.bench_data.build_tables import build_tables
from benchmarks.errors import BenchmarkError

PLAN = build.BuildPlan(num_bytes=60_000, vocab_size=400, workers=1)


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
    result = build.measure([text], PLAN, 1, tmp_path / "work")
    rows = {row["tool"]: row for row in result["tools"]}
    assert "moescale" in rows and set(rows) | set(result["absent"]) == set(build.TOOLS)
    assert len({row["tokens"] for row in rows.values()}) == 1
    for key, by in (("tokens_per_s", "by_wall_time"), ("tokens_per_cpu_s", "by_processor_time")):
        peers = [row[key]["median"] for name, row in rows.items() if name != "moescale"]
        expected = rows["moescale"][key]["median"] / max(peers) if peers else None
        assert result["over_best_peer"][by] == pytest.approx(expected)
    json.dumps(result)


RATE = {"median": 2e6, "low": 1e6, "high": 4e6}
TOOLS = [{"tool": name, "tokens_per_s": RATE, "tokens_per_cpu_s": RATE} for name in ("a", "b")]


def test_table_has_every_tool_and_our_ratio_where_there_is_a_peer() -> None:
    case = {"megabytes": 0.06, "workers": 2}
    ratios = {"by_wall_time": 1.5, "by_processor_time": 2.0}
    beside = {"tools": TOOLS, "over_best_peer": ratios, "absent": []}
    alone = {
        "tools": TOOLS[:1],
        "over_best_peer": dict.fromkeys(ratios),
        "absent": ["datasets.map"],
    }
    first, second = (
        table.as_json()
        for table in build_tables([{"case": case, "result": result} for result in (beside, alone)])
    )
    assert first["title"] == (
        "0.06 MB of JSON lines to tokens, 2 workers: 1.50 times the best other by the clock,"
        " 2.00 times by processor time"
    )
    rates = ["1.00 M (500 k to 2.00 M)", "2.00 M (1.00 M to 4.00 M)"]
    assert first["rows"] == [["a", *rates], ["b", *rates]]
    assert second["title"] == "0.06 MB of JSON lines to tokens, 2 workers"
    assert second["rows"] == [["a", *rates], ["datasets.map", "absent: not installed", "–"]]


def test_too_little_text_is_one_line(text: Path, tmp_path: Path) -> None:
    plan = build.BuildPlan(num_bytes=10**9, vocab_size=400, workers=1)
    with pytest.raises(BenchmarkError, match=r"0\.1 MB of text: name more, or ask for fewer"):
        build.measure([text], plan, 1, tmp_path)


def test_a_failing_tool_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"^moescale: .*no such file"):
        build._timed("moescale", tmp_path / "none.jsonl", tmp_path / "none.json", 1)
