"""Dense against sparse at equal size and at equal budget."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.comparison.dense_vs_sparse import comparisons, loss_at_fraction
from benchmarks.comparison.finding import finding
from moe.runs.reader import read_run
from tests.support.seed_groups import groups_of
from tests.support.synthetic_runs import make_run, write_rows


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


def test_loss_before_the_first_evaluation_is_unknown(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", sparse=False, steps=20))
    write_rows(run.path / "evaluations.jsonl", [{"step": 10, "tokens": 40960, "loss": 5.0}])
    again = read_run(run.path)
    assert loss_at_fraction(again, 0.2) is None
    assert loss_at_fraction(again, 0.5) == 5.0


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 5.0), (40960, 4.0)), ((20480, -1.0), (40960, 4.0)), ((20480, 5.0), (40960, 0.0))],
)
def test_between_numbers_that_no_power_law_has_loss_is_unknown(
    tmp_path: Path, first: tuple[int, float], second: tuple[int, float]
) -> None:
    run = read_run(make_run(tmp_path / "a", sparse=False, steps=20))
    rows = [{"tokens": tokens, "loss": loss} for tokens, loss in (first, second)]
    assert loss_at_fraction(replace(run, evaluations=rows), 0.3) is None
    twice = [{"tokens": tokens, "loss": 5.0} for tokens in (1, 40960, 40960)]
    assert loss_at_fraction(replace(run, evaluations=twice), 0.3) == pytest.approx(5.0)


def test_nothing_is_divided_by_zero(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", sparse=False, tokens_per_s=9.0, joules=0.0),
            make_run(tmp_path / "b", sparse=True, tokens_per_s=9.0, joules=0.0)]  # fmt: skip
    for run in runs:
        record = json.loads((run / "record.json").read_text())
        zeros = {"training_flops": 0.0, "tokens_per_s": 0.0}
        (run / "record.json").write_text(json.dumps(record | zeros))
    words = finding([read_run(run) for run in runs])
    assert "an unknown number of FLOPs, an unknown time and an unknown energy" in words


def test_unknown_energy_gives_no_pair_and_says_so(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, {"sparse": False, "joules": None}, {"sparse": True})
    assert comparisons(groups)[3].reason == "run0: no meter works here"


def test_only_one_kind_has_nothing_to_compare(tmp_path: Path) -> None:
    assert comparisons(groups_of(tmp_path, {"sparse": True})) == []
