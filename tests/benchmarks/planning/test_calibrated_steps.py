"""Steps of the one machine whose kernels and steps were both published: SimuMax's B200.

B200's file holds that machine in its `training_stretch`; without it the steps are too fast, and a
dozen of the machine's own products bring them back.
"""

import csv
from math import log
from statistics import median

import pytest

from benchmarks.planning import validate
from benchmarks.planning.published_shapes import shape_of_row
from parallel.hardware.card import Card, load_card
from parallel.planner.calibration.records.user_points import calibrate_card
from parallel.planner.validation.rows import read_rows
from parallel.planner.validation.score import all_scored
from tests.support.bench_points import bench_records, published_products
from tests.support.paths import ROOT

PUBLISHED = ROOT / "benchmarks" / "published" / "training_steps.csv"
TABLE = ROOT / "tests" / "parallel" / "planner" / "held_out" / "gemm_train_b200_te.csv"
MACHINE = "Megatron-LM@23e00ed (TE 2.11)"


def errors(monkeypatch: pytest.MonkeyPatch, card: Card) -> dict[str, list[float]]:
    """Return |ln(predicted / published)| of the machine's steps, dense and sparse."""
    monkeypatch.setattr(validate, "load_card", lambda _: card)
    rows = [row for row in read_rows(PUBLISHED) if row.cells["framework"] == MACHINE]
    found: dict[str, list[float]] = {}
    for row in all_scored(rows, shape_of_row, validate.StepPredictor()):
        scored = row.as_json()
        if scored["used"]:
            found.setdefault(scored["kind"], []).append(abs(log(1 + scored["error"])))
    return found


def test_a_dozen_products_bring_a_machines_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_card("b200")
    attention = {"attention": shipped.kernels.training_stretch["attention"]}
    kernels = shipped.kernels.model_copy(update={"training_stretch": attention})
    card = shipped.model_copy(update={"kernels": kernels})
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if (r["op"], r["pass"]) == ("gemm", "fwd")]
    own = calibrate_card(card, bench_records(published_products(rows[:12]))).card
    before, after = (errors(monkeypatch, one) for one in (card, own))
    assert (len(before["dense"]), len(before["moe"])) == (16, 6)
    for kind in ("dense", "moe"):
        assert median(before[kind]) > 0.13
        assert median(after[kind]) < 0.05
