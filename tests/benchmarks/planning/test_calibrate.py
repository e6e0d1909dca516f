"""`moe plan --calibrate`: files read, the answer told, the plan changed."""

import json
from pathlib import Path

import pytest

from benchmarks.planning.answer import answer
from benchmarks.planning.interval import TABLES_SPREAD, error_band
from parallel.hardware.card import load_card
from tests.benchmarks.planning.jobs import planner
from tests.support.bench_points import (
    attention_record,
    collective_record,
    gemm_record,
    record,
    write_records,
)
from tests.support.trained_runs import command

H100 = load_card("h100")
PLAN = ("plan", "llama3-8b", "--gpus", "16", "--gpu", "h100", "--global-batch-size", "64")
LAYOUT = ("--layout", "tp=2,pp=2")


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    rows = [gemm_record(H100, m, factor=1.25) for m in (512, 4096)]
    return write_records(
        tmp_path / "kernels.jsonl", [*rows, attention_record(H100, 4096), record("loader", {}, {})]
    )


@pytest.fixture
def links(tmp_path: Path) -> Path:
    rows = [collective_record(H100, "all_gather", 2**power) for power in (16, 22, 28)]
    return write_records(tmp_path / "links.jsonl", rows)


def test_the_answer_says_what_was_found_and_plans_with_it(kernels: Path, links: Path) -> None:
    files = ("--calibrate", kernels, "--calibrate", links)
    code, out, err = command(*PLAN, *LAYOUT, *files, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    found = document["model"]["calibrated"]
    assert found["files"] == [str(kernels), str(links)]
    assert (found["records"], found["device"]) == (7, "NVIDIA H100 80GB HBM3")
    gemm = found["kinds"]["gemm.bf16"]
    assert (gemm["points"], gemm["factor"]) == (2, pytest.approx(1.25))
    assert gemm["error_after"] < 0.01 < gemm["error_before"]
    assert found["kinds"]["collectives.gather"]["transfer_factor"] == pytest.approx(1, rel=1e-3)
    assert found["unused"] == {"other benchmarks": 1}
    assert len(found["notes"]) == 2
    assert isinstance(document["model"]["calibration"], dict)
    _, out, _ = command(*PLAN, *LAYOUT, "--json")
    before = json.loads(out)
    assert before["model"]["calibrated"] is None
    (slow,), (fast,) = document["layouts"], before["layouts"]
    assert slow["terms"]["matmul"] == pytest.approx(1.25 * fast["terms"]["matmul"], rel=1e-6)
    assert slow["terms"]["attention"] == pytest.approx(fast["terms"]["attention"])


def test_tables_pages_searches_and_sweeps_take_it(kernels: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    code, out, err = command(
        *PLAN, "--top", "2", "--sweep-gpus", "16:32", "--html", page, "--calibrate", kernels
    )
    assert code == 0, err
    assert "calibrated on 4 records" in out
    assert "measured on NVIDIA H100 80GB HBM3" in out
    assert "80% interval as without records: too few of one kind" in out
    assert "gemm.bf16" in out and "× 1.25" in out
    assert "1 of 4 records unused: other benchmarks (1)" in out
    assert "not measured, and as the card's file says: experts, stream, collectives" in out
    text = page.read_text(encoding="utf-8")
    assert "calibrated on 4 records" in text
    assert "No step here was measured" in text


def test_the_interval_never_narrows_and_widens_where_points_scatter(tmp_path: Path) -> None:
    even = write_records(tmp_path / "even.jsonl", [gemm_record(H100, m) for m in (512, 1024, 4096)])
    wild = write_records(
        tmp_path / "wild.jsonl",
        [gemm_record(H100, m, factor=f) for m, f in ((512, 0.5), (1024, 1.0), (2048, 1.6))],
    )
    shape = planner().job.shape
    shipped = error_band(shape, H100)
    quiet, loud = (planner(calibrate=(path,)).job.calibrated for path in (even, wild))
    assert quiet is not None and loud is not None
    assert shipped.calibration is None
    kept = error_band(shape, H100, quiet)
    assert kept.spread == shipped.spread
    assert "not narrowed" in str(kept.calibration)
    wide = error_band(shape, H100, loud)
    excess = loud.found.spread**2 - TABLES_SPREAD**2
    assert wide.spread == pytest.approx((shipped.spread**2 + excess) ** 0.5)
    assert "records scatter by 70%" in str(wide.calibration)
    best = answer(planner(calibrate=(wild,)), "tp=2,pp=2,ep=4", 1).best
    assert best.interval[1] / best.step_seconds == pytest.approx(wide.high)


def test_wrong_files_are_one_line(tmp_path: Path, kernels: Path) -> None:
    empty, binary, torn = (tmp_path / name for name in ("empty", "binary", "torn"))
    empty.write_bytes(b"")
    binary.write_bytes(b"\xff\xfe\0\n")
    torn.write_text('{"bench": "gemm"\n{}\n', encoding="utf-8")
    cut, unknown = tmp_path / "cut", tmp_path / "unknown"
    whole = kernels.read_text(encoding="utf-8")
    cut.write_text(whole[:-30], encoding="utf-8")
    bad = gemm_record(H100, 4096)
    bad["result"]["implementations"][0]["burst_s"]["median"] = float("nan")
    write_records(unknown, [bad])
    deep = tmp_path / "deep"
    deep.write_text("[" * 100_000 + "\n", encoding="utf-8")
    wrong = {
        tmp_path / "none": "none: there is no such file: write one with moe bench ... --out",
        empty: "empty: has no record",
        tmp_path: "directory",
        binary: "line 1 is damaged, not JSON",
        torn: "line 1 is damaged, not JSON",
        deep: "line 1 is damaged, not JSON",
        cut: "cut: line 4 is damaged, not JSON",
        unknown: "burst_s.median (nan): Input should be a finite number",
    }
    for path, named in wrong.items():
        code, out, err = command(*PLAN, *LAYOUT, "--calibrate", path)
        assert (code, out) == (2, ""), path
        (line,) = err.splitlines()
        assert line.startswith("moe: ") and named in line
    twice = ("--calibrate", kernels, "--calibrate", kernels)
    for words, named in {
        (*PLAN, *LAYOUT, *twice): "--calibrate is the same file",
        ("plan", "--validate", "f.csv", "--calibrate", kernels): "--calibrate is given: remove it",
        (*PLAN, "--calibrate", kernels, "--html", kernels): "--calibrate is the same file",
    }.items():
        code, out, err = command(*words)
        assert (code, out) == (2, "")
        assert named in err and err.count("\n") == 1
