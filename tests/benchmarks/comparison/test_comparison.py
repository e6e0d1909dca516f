"""Fronts, equal footing and FLOP conventions."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from benchmarks.comparison.dense_vs_sparse import comparisons, loss_at_share
from benchmarks.comparison.finding import finding
from benchmarks.comparison.flop_convention import OWN, convention
from benchmarks.comparison.pareto import front
from benchmarks.comparison.seed_groups import Group, group_runs
from benchmarks.errors import BenchmarkError
from benchmarks.report.content import report_content
from benchmarks.report.write import write_report
from moe.config.experiment import load_model
from moe.cost.ledger import ledger
from moe.errors import ConfigError
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import make_run, write_rows


def groups_of(root: Path, *plans: dict[str, Any]) -> list[Group]:
    runs = [
        read_run(make_run(root / plan.pop("name", f"run{i}"), **{"steps": 20, **plan}))
        for i, plan in enumerate(plans)
    ]
    return group_runs(runs)


def test_front_against_brute_force(tmp_path: Path) -> None:
    rng = random.Random(5)
    plans = [
        {
            "name": f"m{i}",
            "sparse": False,
            "steps": 20 + i,
            "final_loss": 4 + rng.randrange(6) / 10,
            "joules": 100.0 * rng.randrange(1, 6),
        }
        for i in range(25)
    ]
    groups = groups_of(tmp_path, *plans)

    def point(group: Group) -> tuple[float, float]:
        price, loss = group.interval("energy"), group.interval("loss")
        assert price is not None
        assert loss is not None
        return price.mean, loss.mean

    def beaten(group: Group) -> bool:
        x, y = point(group)
        others = [point(other) for other in groups]
        return any(a <= x and b <= y and (a, b) != (x, y) for a, b in others)

    expected = {group.label for group in groups if not beaten(group)}
    found = front(groups, "energy")
    assert {group.label for group in found} == expected
    assert [point(group)[0] for group in found] == sorted(point(group)[0] for group in found)


def test_a_model_without_the_cost_is_not_on_its_front(tmp_path: Path) -> None:
    groups = groups_of(
        tmp_path,
        {"sparse": False, "joules": None, "final_loss": 1.0},
        {"sparse": True, "final_loss": 4.0},
    )
    assert [group.label for group in front(groups, "energy")] == ["run1"]


def test_equal_footing(tmp_path: Path) -> None:
    """Equal tokens, the sparse one at 1.6 times the joules: at equal energy it is at 62.5%."""
    groups = groups_of(
        tmp_path,
        {"sparse": False, "final_loss": 4.4, "joules": 500.0, "steps": 200},
        {"sparse": True, "final_loss": 4.2, "joules": 800.0, "steps": 200},
    )
    active, flops, memory, energy = comparisons(groups)
    assert (active.dense.loss, active.sparse.loss) == (4.4, 4.2)  # type: ignore[union-attr]
    assert memory.reason == "the nearest pair is 71% apart"
    assert energy.dense is not None
    assert energy.sparse is not None
    assert (energy.dense.loss, energy.dense.note) == (4.4, "at its end")
    assert energy.sparse.note == "after 62% of its training"
    # The made-up curve is a power law of the step, and so is the way between its points.
    assert energy.sparse.loss == pytest.approx(4.2 * (1 / 0.625) ** 0.09, rel=1e-6)
    assert flops.sparse is not None
    assert flops.sparse.note == "after 99% of its training"


@pytest.mark.parametrize(
    ("sparse_active", "equal"),
    [(2_110_000, True), (2_020_000, True), (1_962_300, False), (1_870_000, False)],
)
@pytest.mark.parametrize("dense_is_larger", [True, False])
def test_sentence_and_table_agree_on_what_is_equal(
    sparse_active: int, equal: bool, dense_is_larger: bool, tmp_path: Path
) -> None:
    """Sizes 0, 4, 7 and 11% apart, either way round: the sentence and the table say the same."""
    sizes = [2_110_000, sparse_active] if dense_is_larger else [sparse_active, 2_110_000]
    ledgers = [
        {"total_parameters": 3 * size, "active_parameters": size, "training_flops_per_token": 1e7}
        for size in sizes
    ]
    dense, sparse = [{"sparse": kind, "changes": {"ledger": ledger}}
                     for kind, ledger in zip((False, True), ledgers, strict=True)]  # fmt: skip
    groups = groups_of(tmp_path, dense, sparse)
    sentence = finding([run for group in groups for run in group.runs])
    assert sentence.startswith("At equal active" if equal else "At unequal active")
    by_basis = {comparison.basis: comparison for comparison in comparisons(groups)}
    for basis in ("active parameters", "memory for weights"):
        assert (by_basis[basis].reason is None) == equal
    gap = round(100 * (1 - min(sizes) / max(sizes)))
    if not equal:
        assert by_basis["active parameters"].reason == f"the nearest pair is {gap}% apart"


def test_every_row_of_a_model_speaks_of_all_its_seeds(tmp_path: Path) -> None:
    plans = [{"sparse": False, "seed": n, "final_loss": 4.0 + n / 10} for n in range(3)]
    groups = groups_of(tmp_path, *plans, {"sparse": True, "final_loss": 4.0})
    for comparison in comparisons(groups)[:2]:
        assert comparison.dense is not None
        assert comparison.dense.loss == pytest.approx(4.1)


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
    assert dense not in front(groups, "energy")
    assert sparse in front(groups, "energy")
    alone = [read_run(run) for run in (runs[0], runs[2])]
    content = report_content(alone, group_runs(alone))
    assert content["best"]["energy_per_token"] == []
    assert not any("Least energy" in line for line in content["summary"])


def test_loss_before_the_first_evaluation_is_unknown(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", sparse=False, steps=20))
    write_rows(run.path / "evaluations.jsonl", [{"step": 10, "tokens": 40960, "loss": 5.0}])
    again = read_run(run.path)
    assert loss_at_share(again, 0.2) is None
    assert loss_at_share(again, 0.5) == 5.0


def test_unknown_energy_gives_no_pair_and_says_so(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, {"sparse": False, "joules": None}, {"sparse": True})
    assert comparisons(groups)[3].reason == "run0: no meter works here"


def test_only_one_kind_has_nothing_to_compare(tmp_path: Path) -> None:
    assert comparisons(groups_of(tmp_path, {"sparse": True})) == []


def real_run(path: Path, factor: float = 1.0, **more: Any) -> Run:
    """A run whose ledger is moe.cost.ledger's own, times `factor`."""
    model = load_model("tiny")
    counted = ledger(model, 128).as_json()
    counted["training_flops_per_token"] *= factor
    make_run(path, sparse=False, steps=4, changes={"ledger": {**counted, **more}})
    experiment = {
        "name": path.name,
        "model": model.model_dump(mode="json", exclude_none=True),
        "train": {"seq_len": 128},
    }
    (path / "experiment.toml").write_text(tomli_w.dumps(experiment))
    return read_run(path)


def test_our_convention_is_recognised_by_counting_again(tmp_path: Path) -> None:
    assert convention(real_run(tmp_path / "a")) == OWN
    assert "0.9 x moescale's" in convention(real_run(tmp_path / "b", 0.9))
    assert convention(real_run(tmp_path / "c", flop_convention="hfu")) == "hfu"


def test_unlike_conventions_are_not_compared_silently(tmp_path: Path) -> None:
    runs = [real_run(tmp_path / "a"), real_run(tmp_path / "b", 1.07)]
    with pytest.raises(BenchmarkError, match="unlike conventions.*a by moescale.*b by another"):
        write_report([run.path for run in runs], tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
