"""A dozen products of one published B200 predict the rest of what that machine multiplied."""

import csv
from math import log
from pathlib import Path
from statistics import median

from parallel.hardware.card import Card, load_card
from parallel.planner.calibration.records.user_points import calibrate_card
from parallel.planner.compute_time.gemm import gemm_seconds
from tests.support.bench_points import bench_records, published_products

TABLE = Path(__file__).parents[2] / "held_out" / "gemm_train_b200_te.csv"
POINTS = 12


def errors(card: Card, rows: list[dict[str, str]]) -> list[float]:
    found = []
    for row in rows:
        sizes = [int(row[name]) for name in ("m", "n", "k")]
        output_bytes = 8.0 if row["out_dtype"] == "fp32" else 2.0
        seconds = gemm_seconds(card, *sizes, "bf16", output_bytes=output_bytes)
        found.append(abs(log(seconds * 1e6 / float(row["us"]))))
    return found


def test_a_dozen_forward_products_predict_all_three_passes() -> None:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["op"] == "gemm"]
    given = [row for row in rows if row["pass"] == "fwd"][:POINTS]
    rest = [row for row in rows if row not in given]
    card = load_card("b200")
    found = calibrate_card(card, bench_records(published_products(given)))
    assert found.kinds["gemm.bf16"].points == POINTS
    assert len(rest) == 41
    assert median(errors(card, rest)) > 0.25
    assert median(errors(found.card, rest)) < 0.05
