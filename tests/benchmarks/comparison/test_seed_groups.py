"""Runs grouped by what they share; unlike meters are neither averaged nor ranked."""

import json
from pathlib import Path

from benchmarks.comparison.pareto import pareto_front
from benchmarks.comparison.seed_groups import group_runs
from benchmarks.report.content import report_content
from moe.runs.reader import read_run
from tests.support.synthetic_runs import make_run


def test_seeds_are_grouped_and_nothing_else(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / f"sparse-seed{seed}", sparse=True, seed=seed, steps=20))
        for seed in range(3)
    ]
    runs.append(read_run(make_run(tmp_path / "dense", sparse=False, steps=20)))
    runs.append(read_run(make_run(tmp_path / "dense-long", sparse=False, steps=40)))
    groups = group_runs(runs)
    assert [(group.label, len(group.runs)) for group in groups] == [
        ("sparse", 3),
        ("dense", 1),
        ("dense-long", 1),
    ]


def test_unlike_meters_are_neither_averaged_nor_ranked(tmp_path: Path) -> None:
    """A processor's model and a whole machine's meter differ by more than the models do."""
    runs = [make_run(tmp_path / f"a{n}", sparse=False, seed=n) for n in range(2)]
    runs.append(make_run(tmp_path / "b", sparse=True))
    section = json.loads((runs[0] / "record.json").read_text())
    for part in ("total", "train", "per_token"):
        section["energy"][part] |= {"kind": "measured", "source": "nvml", "boundary": "GPU board"}
    (runs[0] / "record.json").write_text(json.dumps(section))
    dense, sparse = groups = group_runs([read_run(run) for run in runs])
    mixed = dense.measurement("energy_per_token")
    assert mixed.value is None
    assert mixed.reason == "its runs know it in unlike ways: nvml, model"
    assert dense.measurement("loss").value is not None
    assert dense not in pareto_front(groups, "energy")
    assert sparse in pareto_front(groups, "energy")
    alone = [read_run(run) for run in (runs[0], runs[2])]
    content = report_content(alone, group_runs(alone))
    assert content["best"]["energy_per_token"] == []
    assert not any("Least energy" in line for line in content["summary"])
