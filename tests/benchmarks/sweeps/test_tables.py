"""A sweep's results for a terminal."""

import json
from typing import Any

from benchmarks.sweeps.tables import result_table


def row(run: str, settings: dict[str, Any], loss: float | None, **more: Any) -> dict[str, Any]:
    known = {
        "run": run, "status": "finished", "settings": json.dumps(settings), "loss": loss,
        "tokens": 42_112, "flops": 3e9, "wall_seconds": 75.0, "energy_joules": 1234.0,
        "energy_kind": "modelled",
    }  # fmt: skip
    return known | more


def test_results_are_the_best_first_with_numbers_as_people_write_them() -> None:
    rows = [
        row("b", {"hidden_size": 64, "experts": 8}, 5.0),
        row("a", {"hidden_size": 32, "train.learning_rate": 3e-5}, 4.5, energy_joules=None),
        row("c", {"hidden_size": 32}, None),
    ]
    table = result_table(rows).as_json()
    assert table["title"] == "Results: 2 of 3 runs"
    assert table["columns"][:4] == ["run", "hidden_size", "train.learning_rate", "experts"]
    assert table["rows"][0] == [
        "a", "32", "3e-5", "", "4.5000", "42,112", "3e9", "1.25 min", "–", "modelled",
    ]  # fmt: skip
    assert table["rows"][1] == [
        "b", "64", "", "8", "5.0000", "42,112", "3e9", "1.25 min", "1.23 kJ", "modelled",
    ]  # fmt: skip
