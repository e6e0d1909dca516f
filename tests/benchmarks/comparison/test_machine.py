"""Runs one after another on a machine under unlike load: their speeds are told, not compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.comparison.conditions import conditions
from benchmarks.comparison.machine import doubt, mfu, others_share
from benchmarks.report.write import write_report
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import make_run, measurement


def load(share: float | None, **more: Any) -> dict[str, Any]:
    return {"load": measurement(share, "share", kind="measured", source="/proc/stat", **more)}


def pair(root: Path, dense: dict[str, Any], sparse: dict[str, Any], **more: Any) -> list[Path]:
    return [
        make_run(root / "dense", sparse=False, steps=4, tokens_per_s=1500, changes=dense, **more),
        make_run(root / "sparse", sparse=True, steps=4, tokens_per_s=9800, changes=sparse, **more),
    ]


def read(paths: list[Path]) -> list[Run]:
    return [read_run(path) for path in paths]


QUIET_AND_BUSY = "other programs took 62.0% of the processors beside dense, 3.00% beside sparse"
PEAKS = (
    "the machine's own matmul rate was 81.0 GFLOP/s beside sparse, 2.13 times the 38.0 GFLOP/s"
    " beside dense"
)


@pytest.mark.parametrize(
    ("dense", "sparse", "reason"),
    [
        (load(0.62), load(0.03), QUIET_AND_BUSY),
        ({"peak": {"flops_per_s": 38e9}}, {"peak": {"flops_per_s": 81e9}}, PEAKS),
    ],
    ids=["load", "peak"],
)
def test_no_headline_of_speed_where_the_machine_was_not_the_same(
    tmp_path: Path, dense: dict[str, Any], sparse: dict[str, Any], reason: str
) -> None:
    runs = pair(tmp_path, dense, sparse, energy={"price_per_device_hour": 2.0})
    content = json.loads(write_report(runs, tmp_path / "out").json.read_text())
    assert f"a time not comparable ({reason})" in content["finding"]
    assert "x the time" not in content["finding"]
    assert f"Fastest: not told, as {reason}." in content["summary"]
    assert not any(line.startswith("Fastest: sparse") for line in content["summary"])
    for quantity in ("tokens_per_s", "flops_per_s", "wall_time_s", "money"):
        assert content["best"][quantity] == []
    assert content["best"]["weight_bytes"], "what is counted is compared all the same"
    assert f"Not comparable: {reason}." in (tmp_path / "out" / "report.html").read_text()


def test_the_typical_rate_counts_where_it_was_measured_beside_the_steps(tmp_path: Path) -> None:
    """Both machines could once do 81 GFLOP/s, but not while the dense model trained."""
    peaks = [{"peak": {"flops_per_s": 81e9, "median_flops_per_s": median}}
             for median in (38e9, 81e9)]  # fmt: skip
    assert doubt("tokens_per_s", read(pair(tmp_path, *peaks))) == PEAKS


@pytest.mark.parametrize(
    ("dense", "sparse"),
    [
        (load(0.05), load(0.14)),
        (load(0.62), {}),  # an older run did not record it: nothing is known to differ
        (load(None), load(0.4)),
        ({"peak": {"flops_per_s": 38e9}}, {"peak": {"flops_per_s": 47e9}}),
        # A rate in another number format is another rate.
        ({"peak": {"flops_per_s": 38e9}, "execution": {"dtype": "float32"}},
         {"peak": {"flops_per_s": 81e9}, "execution": {"dtype": "bfloat16"}}),
        # Unlike machines are unlike by intent.
        ({"hardware": {"name": "A"}, **load(0.62)}, {"hardware": {"name": "B"}, **load(0.03)}),
    ],
)  # fmt: skip
def test_what_may_be_compared(
    tmp_path: Path, dense: dict[str, Any], sparse: dict[str, Any]
) -> None:
    runs = read(pair(tmp_path, dense, sparse))
    assert doubt("tokens_per_s", runs) is None


def test_others_work_reaches_the_meters_of_a_node_not_those_of_a_gpu(tmp_path: Path) -> None:
    runs = read(pair(tmp_path, load(0.62), load(0.03)))
    for meter in ("model", "rapl", "csv", "nvml", "zeus"):
        for run in runs:
            run.record["energy"]["source"] = meter  # type: ignore[index]
        reason = None if meter in ("nvml", "zeus") else QUIET_AND_BUSY
        assert doubt("energy_per_token", runs) == reason
    assert doubt("total_parameters", runs) is None
    assert doubt("loss", runs) is None


def test_an_mfu_above_one_is_not_told_as_measured(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", sparse=False, steps=4, changes={"mfu": 2.41})
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows[1]["mfu"] = 2.41
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = write_report([path], tmp_path / "out")
    [group] = json.loads(report.json.read_text())["groups"]
    assert group["measurements"]["mfu"]["value"] is None
    assert "faster than the measured peak" in group["measurements"]["mfu"]["reason"]
    assert "2.41" not in (report.figures / "training.csv").read_text()
    # A newer run has null there, and says why all the same.
    newer = {"mfu": None, "flops_per_s": 9e11, "peak": {"flops_per_s": 3.8e11}}
    run = read_run(make_run(tmp_path / "b", sparse=False, steps=4, changes=newer))
    assert "faster than the measured peak" in (mfu(run).reason or "")


def test_load_and_peak_stand_among_the_conditions(tmp_path: Path) -> None:
    peak = {"flops_per_s": 81e9, "source": "measured",
            "rates_flops_per_s": [38e9, 80e9, 81e9, 79e9]}  # fmt: skip
    boundary = {"boundary": "processors that the run may use"}
    runs = read(pair(tmp_path, {**load(0.62, **boundary), "peak": peak}, {}))
    rows = {row["label"]: row["texts"] for row in conditions(runs)}
    assert rows["Taken by other programs"] == [
        "62.0% of the processors that the run may use", "not recorded"
    ]  # fmt: skip
    assert rows["Peak for MFU"][0] == (
        "81.0 GFLOP/s (measured; highest of 4 beside the run, lowest 38.0 GFLOP/s)"
    )
    assert rows["Peak for MFU"][1].endswith("once, before the run)")
    assert others_share(runs[1]).reason == "not recorded by the run"
