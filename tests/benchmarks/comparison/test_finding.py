"""The sentence says what happened, whichever way it went."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.comparison.finding import finding
from moe.runs.reader import read_run
from moe.runs.run import Run
from tests.support.synthetic_runs import make_run


def runs_of(root: Path, *plans: dict[str, Any]) -> list[Run]:
    return [
        read_run(make_run(root / plan.pop("name", f"run{i}"), steps=20, **plan))
        for i, plan in enumerate(plans)
    ]


def test_sparse_better(tmp_path: Path) -> None:
    text = finding(
        runs_of(
            tmp_path,
            {"sparse": False, "final_loss": 4.412, "tokens_per_s": 9800.0, "joules": 610.0},
            {"sparse": True, "final_loss": 4.268, "tokens_per_s": 4900.0, "joules": 976.0},
        )
    )
    assert text.startswith("At equal active parameters (2.11 M dense, 2.10 M sparse)")
    assert "4.268 nats/token against 4.412 for the dense one, 0.14 lower" in text
    assert "1.01x the FLOPs, 2.00x the time and 1.60x the energy (modelled) per token" in text
    assert "with one seed there is no telling how much of the difference is noise" in text
    assert text.count(". ") == 0


def test_sparse_worse_is_said_as_plainly(tmp_path: Path) -> None:
    text = finding(
        runs_of(
            tmp_path,
            {"sparse": False, "final_loss": 4.1},
            {"sparse": True, "final_loss": 4.35},
        )
    )
    assert "4.350 nats/token against 4.100 for the dense one, 0.25 higher" in text


@pytest.mark.parametrize(
    ("spread", "verdict"), [(0.2, "is within noise"), (0.001, "is beyond noise")]
)
def test_seeds_decide_what_is_noise(tmp_path: Path, spread: float, verdict: str) -> None:
    plans = [
        {
            "name": f"{kind}-seed{seed}",
            "sparse": kind == "sparse",
            "seed": seed,
            "final_loss": base + spread * (seed - 1),
        }
        for kind, base in (("dense", 4.4), ("sparse", 4.3))
        for seed in range(3)
    ]
    text = finding(runs_of(tmp_path, *plans))
    assert f"over 3 and 3 seeds the difference {verdict}" in text


def test_unequal_footing_is_named(tmp_path: Path) -> None:
    ledger = {
        "total_parameters": 20_000_000,
        "active_parameters": 5_000_000,
        "training_flops_per_token": 3e7,
    }
    text = finding(
        runs_of(
            tmp_path,
            {"sparse": False},
            {"sparse": True, "tokens_per_step": 8192, "changes": {"ledger": ledger}},
        )
    )
    assert "At unequal active parameters (2.11 M dense, 5.00 M sparse) and unequal training" in text


def test_unknown_energy_and_unlike_machines_are_not_compared(tmp_path: Path) -> None:
    other = {"hardware": {"name": "Xeon", "ranks": 1}}
    text = finding(
        runs_of(
            tmp_path,
            {"sparse": False, "joules": None},
            {"sparse": True, "changes": other},
        )
    )
    assert "an unknown energy" in text
    assert "a time not comparable (unlike machines)" in text


def test_one_run_and_one_kind(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"sparse": True, "final_loss": 4.0})
    assert finding(runs) == (
        "run0 reached a held-out loss of 4.000 nats/token; there is no run to compare it with."
    )
    more = runs_of(
        tmp_path / "b", {"name": "x", "sparse": True, "final_loss": 3.5, "tokens_per_step": 99}
    )
    assert finding([*runs, *more]).startswith("Of 2 sparse models, x reached")


def test_a_loss_of_zero_is_a_loss(tmp_path: Path) -> None:
    dense, sparse = {"sparse": False, "final_loss": 1.0}, {"sparse": True, "final_loss": 0.0}
    assert "1.0 lower" in finding(runs_of(tmp_path, dense, sparse))
