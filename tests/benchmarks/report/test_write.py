"""The report's content, its Markdown twin, and its data."""

import csv
import gzip
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

from benchmarks.comparison.expert_load import load_maps
from benchmarks.comparison.seed_groups import group_runs
from benchmarks.errors import BenchmarkError
from benchmarks.report.bench_results import step_splits
from benchmarks.report.figures import report_figures
from benchmarks.report.figures_time import phase_figure, phase_seconds, step_figure
from benchmarks.report.page_template import packed_plotly
from benchmarks.report.plotly_figure import MAX_POINTS, thinned
from benchmarks.report.write import ReportPaths, write_report
from moe.errors import ConfigError
from moe.runs.reader import read_run
from moescale import app
from tests.support.synthetic_runs import load_row, make_run, write_rows


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    root = tmp_path_factory.mktemp("report")
    dense = make_run(root / "dense", sparse=False, final_loss=4.4, joules=None)
    sparse = make_run(root / "sparse <b>&|", sparse=True, final_loss=4.2)
    return write_report([dense, sparse], root / "out")


def test_every_number_has_its_kind_or_its_reason(report: ReportPaths) -> None:
    content = json.loads(report.json.read_text())
    for group in content["groups"]:
        for measurement in group["measurements"].values():
            known = measurement["value"] is not None
            assert known == (measurement["kind"] in ("measured", "modelled", "published"))
            assert known or measurement["reason"]
    dense, sparse = (group["measurements"] for group in content["groups"])
    assert dense["energy_per_token"]["value"] is None
    assert sparse["energy_per_token"]["kind"] == "modelled"
    assert sparse["loss"]["kind"] == "measured"
    unknown = {item["reason"]: item for item in content["unknown"]}
    assert unknown["no meter works here"]["models"] == "dense"
    assert unknown["no meter works here"]["quantity"].startswith("Energy per token, Energy of")


def test_best_needs_every_value(report: ReportPaths) -> None:
    best = json.loads(report.json.read_text())["best"]
    assert len(best["loss"]) == 1
    assert best["energy_per_token"] == []
    assert best["mfu"] == []  # equal


def test_page_is_offline_and_names_are_escaped(report: ReportPaths) -> None:
    page = report.html.read_text()
    assert gzip.decompress(b64decode(packed_plotly())).decode() == get_plotlyjs()
    without_plotly = page.replace(packed_plotly(), "")
    assert re.findall(r"""(?:src|href|url|@import)\W{1,3}(?:https?:)?//""", without_plotly) == []
    assert page.count(packed_plotly()) == 1
    assert len(page) < 2_500_000
    assert "sparse <b>" not in without_plotly
    assert "sparse &lt;b&gt;" in without_plotly


def test_markdown_tables_have_equal_columns(report: ReportPaths) -> None:
    lines = report.markdown.read_text().splitlines()
    tables: list[set[int]] = []
    for line, before in zip(lines, ["", *lines], strict=False):
        if line.startswith("|"):
            tables += [] if before.startswith("|") else [set()]
            tables[-1].add(line.replace("\\|", "").count("|"))
    assert len(tables) == 4
    assert all(len(columns) == 1 for columns in tables)


def test_csv_and_parquet_hold_the_same(report: ReportPaths) -> None:
    for name in (
        "summary",
        "runs",
        "held_out_loss",
        "training",
        "time",
        "energy_phases",
        "expert_load",
    ):
        with (report.figures / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        table = pq.read_table(report.figures / f"{name}.parquet")
        assert rows
        assert table.num_rows == len(rows)
        assert table.column_names == list(rows[0])
    loss = pq.read_table(report.figures / "held_out_loss.parquet").to_pylist()
    assert loss[-1]["loss"] == pytest.approx(4.2)
    assert loss[-1]["training_flops"] == pytest.approx(loss[-1]["tokens"] * 13.2e6)


def test_an_older_report_leaves_nothing_behind(tmp_path: Path) -> None:
    sparse = make_run(tmp_path / "a", sparse=True, steps=4)
    dense = make_run(tmp_path / "b", sparse=False, steps=4)
    paths = write_report([sparse], tmp_path / "out")
    assert (paths.figures / "expert_load.csv").exists()
    write_report([dense], tmp_path / "out")
    names = {path.name for path in paths.figures.iterdir()}
    assert names.isdisjoint({"expert_load.csv", "expert_load.parquet"})
    assert "held_out_loss.csv" in names


def test_markdown_says_the_finding_first(report: ReportPaths) -> None:
    content = json.loads(report.json.read_text())
    lines = [line for line in report.markdown.read_text().splitlines() if line]
    assert lines[0].startswith("# ")
    assert lines[1] == content["finding"]


def test_conditions_name_every_mandatory_field(report: ReportPaths) -> None:
    rows = {row["label"]: row for row in json.loads(report.json.read_text())["conditions"]}
    for label in ("Dispatcher", "Fabric", "Routing", "Recomputation", "Precision", "Kernels",
                  "Versions", "Commit"):  # fmt: skip
        assert len(rows[label]["texts"]) == 2
    assert rows["Fabric"]["texts"] == ["none (one rank)"] * 2
    assert rows["Dispatcher"]["texts"] == ["none (dense model)", "alltoall"]
    assert rows["Kernels"]["same"]
    assert rows["Routing"]["texts"] == ["dense model", "natural"]


def test_published_numbers_are_shown_as_published_with_their_source(report: ReportPaths) -> None:
    content = json.loads(report.json.read_text())
    speeds = content["published_speed"]
    assert all(row["source"] and row["flops_per_s"] for row in speeds)
    moonlight = [row for row in speeds if row["model"] == "Moonlight-16B"]
    assert [row["flops_per_s"] for row in moonlight] == ["77.5 TFLOP/s"]
    # The fastest of the same model, precision and routing stands for all, whatever its spelling.
    qwen = [r for r in speeds if "30B" in r["model"] and r["routing"] == "forced-balance"]
    rates = {row["precision"][:3]: row["flops_per_s"] for row in qwen}
    assert rates == {"BF1": "287.305 TFLOP/s", "FP8": "232.4 TFLOP/s"}
    assert {row["routing"] for row in speeds} >= {"forced-balance", "natural dropless"}
    page = report.html.read_text()
    assert page.count('<span class="kind published">published</span>') >= len(speeds) + 10


def test_the_summary_says_who_leads_and_what_noise_leaves_open(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a-seed{s}", sparse=False, seed=s, final_loss=4 + s / 9)
            for s in range(2)]  # fmt: skip
    runs.append(make_run(tmp_path / "b", sparse=True, final_loss=3.9, joules=None))
    runs.append(make_run(tmp_path / "c", sparse=True, steps=99, tokens_per_s=12_000))
    lines = json.loads(write_report(runs, tmp_path / "out").json.read_text())["summary"]
    assert lines[0] == "Lowest held-out loss: b (3.900, measured), before c (4.000, measured)."
    assert lines[1].startswith("Fastest: c (12.0 k tokens/s, measured), before ")
    assert lines[2].endswith("; known of 2 of 3.")
    assert "One seed only: b, c." in " ".join(lines)
    assert "modelled, not measured" in lines[-1]


def test_time_by_phase_splits_training_into_computing_and_waiting(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", sparse=False, steps=10))
    for row in run.metrics:
        row["data_stall_s"] = 0.1
    seconds = phase_seconds(run)
    assert seconds["waiting"] == pytest.approx(1.0)
    assert sum(seconds.values()) == pytest.approx(
        run.record["energy"]["phases"]["train"]["seconds"]
    )
    figure = phase_figure(group_runs([run]))
    assert figure is not None
    assert sum(trace["x"][0] for trace in figure["traces"]) == pytest.approx(1)
    assert figure["traces"][0]["meta"]["groups"] == [run.run_id]


def bench_line(bench: str, case: dict[str, Any], result: dict[str, Any]) -> str:
    conditions = {
        "hardware": {"name": "AMD EPYC", "ranks": 1},
        "load_average": 0.2,
        "cores": 2,
        "commit": {"commit": "3e898e9aa0b1c2d3"},
        "measured_at": "2026-11-25",
    }
    record = {"format": 1, "bench": bench, "case": case, "conditions": conditions}
    return json.dumps({**record, "result": result}) + "\n"


def test_benchmarks_stand_beside_the_runs(tmp_path: Path) -> None:
    spread = {"median": 0.5, "low": 0.4, "high": 0.6}
    file = tmp_path / "bench.jsonl"
    case = {"operation": "all_reduce", "ranks": 2, "bytes": 4096}
    file.write_text(bench_line("collectives", case, {"time_s": spread, "bus_bytes_per_s": 1e9}))
    run = make_run(tmp_path / "a", sparse=False, steps=4)
    paths = write_report([run], tmp_path / "out", bench_files=[file])
    [bench] = json.loads(paths.json.read_text())["bench"]
    [table] = bench["tables"]
    time = "0.500 s (0.400 s to 0.600 s)"
    assert table["rows"] == [["all_reduce", "2", "4.10 kB", time, "1.00 GB/s"]]
    assert "AMD EPYC, 1 rank(s); load 0.2 on 2 cores" in bench["conditions"][0]
    for text in (paths.html.read_text(), paths.markdown.read_text()):
        assert "0.500 s (0.400 s to 0.600 s)" in text
    file.write_text('{"bench": "knitting"}\n')
    with pytest.raises(BenchmarkError, match="no table for knitting"):
        write_report([run], tmp_path / "out", bench_files=[file])
    with pytest.raises(BenchmarkError, match="no such file"):
        write_report([run], tmp_path / "out", bench_files=[tmp_path / "none"])


def test_a_steps_time_is_a_stacked_bar() -> None:
    split = {"attention": 1.0, "experts": 2.0, "other": 1.0, "step": 4.0, "communication": None}
    case = {"model": "m", "layers": 1, "of_layers": 4}
    splits = step_splits([{"bench": "step", "case": case, "result": {"split_s": split}}])
    assert splits == {"m (1 layers)": {"attention": 0.25, "experts": 0.5, "other": 0.25}}
    figure = step_figure(splits)
    assert figure is not None
    assert [trace["x"] for trace in figure["traces"]] == [[0.25], [0.5], [0.25]]


def test_error_bars_stop_at_zero(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"a-seed{s}", sparse=False, seed=s, tokens_per_s=100 + 9000 * s)
            for s in range(2)]  # fmt: skip
    figures = {
        figure["id"]: figure
        for figure in report_figures(group_runs([read_run(run) for run in runs]))
    }
    [trace] = figures["tokens-per-s"]["traces"]
    assert trace["error_x"]["arrayminus"] == trace["x"]
    assert trace["error_x"]["array"][0] > trace["x"][0]


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    import random

    rows = [{"step": i} for i in range(5000)]
    kept = thinned(rows)
    assert len(kept) == MAX_POINTS
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])
    path = make_run(tmp_path / "a", sparse=True, steps=20)
    rng = random.Random(0)
    write_rows(path / "expert_load.jsonl", [load_row(s, 999, rng) for s in range(1, 1000)])
    maps = load_maps(read_run(path))
    assert maps is not None
    assert len(maps.steps) <= 120
    assert maps.steps[-1] == 999


def test_a_run_given_twice_or_none(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=4)
    with pytest.raises(ConfigError, match="given twice"):
        write_report([path, tmp_path / "." / "a"], tmp_path / "out")
    with pytest.raises(ConfigError, match="0 runs"):
        write_report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_prints_one_json_document(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=4)
    result = CliRunner().invoke(app, ["report", str(path), "-o", str(tmp_path / "o"), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["groups"][0]["label"] == "a"


def failed_run(path: Path) -> Path:
    path.mkdir()
    record = {"format": 1, "status": "failed", "failure": "energy.power_csv: no such <file>"}
    (path / "record.json").write_text(json.dumps(record))
    return path


def test_a_failed_run_stands_in_the_report_and_hides_no_other(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", sparse=False, steps=4), failed_run(tmp_path / "b")]
    done = CliRunner().invoke(
        app, ["report", *map(str, runs), "-o", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert [group["label"] for group in content["groups"]] == ["a"]
    [left_out] = content["unreadable"]
    assert left_out["run"] == str(runs[1])
    assert "failed before its first step (energy.power_csv: no such <file>)" in left_out["reason"]
    assert "left out: " in done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 of 2 runs left out" in page
    assert "no such &lt;file&gt;" in page
    assert "## Runs left out" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(ConfigError, match="failed before its first step"):
        write_report(runs[1:], tmp_path / "none")


def test_a_run_that_failed_on_its_way_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    """Its record has no totals: tokens are those of its last row, what it cost is unknown."""
    died = make_run(tmp_path / "died", sparse=True, steps=4, final_loss=3.0)
    record = json.loads((died / "record.json").read_text())
    ended = ("steps", "tokens", "wall_time_s", "tokens_per_s", "flops_per_s", "mfu", "final_loss",
             "train_loss", "energy")  # fmt: skip
    kept = {key: value for key, value in record.items() if key not in ended}
    (died / "record.json").write_text(json.dumps({**kept, "status": "failed"}))
    good = make_run(tmp_path / "good", sparse=False, steps=4)
    content = json.loads(write_report([died, good], tmp_path / "out").json.read_text())
    [group] = [group for group in content["groups"] if group["label"] == "died"]
    for quantity in ("tokens_per_s", "energy", "money"):
        assert group["measurements"][quantity]["value"] is None
    assert group["measurements"]["tokens"]["value"] == 4 * 4096
    assert group["measurements"]["training_flops"]["value"] == 4 * 4096 * 13.2e6
    assert "after 16.4 k tokens each" in content["finding"]
    assert "an unknown time and an unknown energy" in content["finding"]
