"""What a report says: the best by each quantity, and a report of many runs."""

from pathlib import Path

import pytest

from benchmarks.report.content import report_content
from benchmarks.report.write import write_report
from moe.errors import ConfigError
from tests.support.seed_groups import groups_of
from tests.support.synthetic_runs import make_run


def test_best_includes_what_seeds_do_not_tell_apart(tmp_path: Path) -> None:
    plans = [
        {"name": f"{name}-seed{seed}", "sparse": name == "b", "seed": seed, "steps": steps,
         "final_loss": base + spread * (seed - 1)}
        for name, base, spread, steps in (("a", 4.30, 0.05, 20), ("b", 4.31, 0.05, 20),
                                          ("c", 4.90, 0.01, 24))
        for seed in range(3)
    ]  # fmt: skip
    groups = groups_of(tmp_path, *plans)
    runs = [run for group in groups for run in group.runs]
    best = report_content(runs, groups)["best"]["loss"]
    assert best == [group.key for group in groups if group.label in ("a", "b")]


def test_one_seed_each_cannot_tell_a_small_difference(tmp_path: Path) -> None:
    def best(name: str, loss: float, tokens_per_s: float) -> dict[str, list[str]]:
        groups = groups_of(
            tmp_path / name,
            {"name": "a", "sparse": False, "final_loss": 4.41, "tokens_per_s": 9800.0},
            {"name": "b", "sparse": True, "final_loss": loss, "tokens_per_s": tokens_per_s},
        )
        runs = [run for group in groups for run in group.runs]
        marked: dict[str, list[str]] = report_content(runs, groups)["best"]
        return {key: [k[0] for k in marked[key]] for key in ("loss", "tokens_per_s")}

    assert best("near", 4.40, 9500.0) == {"loss": [], "tokens_per_s": []}
    assert best("far", 4.30, 8800.0) == {"loss": ["b"], "tokens_per_s": ["a"]}


def test_two_hundred_runs(tmp_path: Path) -> None:
    paths = [
        make_run(tmp_path / f"m{i}", sparse=i % 2 == 0, steps=20, tokens_per_step=1000 + i)
        for i in range(200)
    ]
    report = write_report(paths, tmp_path / "out")
    assert report.html.stat().st_size < 12e6
    assert report.markdown.stat().st_size < 2e5
    with pytest.raises(ConfigError, match="201 runs: a report compares 1 to 200"):
        write_report([*paths, make_run(tmp_path / "x", sparse=False, steps=4)], tmp_path / "o")
