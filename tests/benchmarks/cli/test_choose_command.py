"""`moe choose` and `moe predict` under limits of cards, as a user runs them."""

import json
from pathlib import Path

import pytest

from moe.config.experiment import load_experiment
from tests.support.law_points import made_points, write_csv
from tests.support.trained_runs import command

BUDGET = ("--budget-gpu-hours", "2", "--gpu", "h100", "--gpus", "2")


def test_one_command_answers_and_writes_what_plan_and_train_take(tmp_path: Path) -> None:
    file = tmp_path / "chosen.toml"
    code, out, err = command("choose", *BUDGET, "--price", "2", "--currency", "USD",
                             "--region", "FRA", "--start", "2026-12-01", "--write", file,
                             "--json")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert {"best", "loss", "interval", "law", "cost", "plan", "model", "runner_up", "dense",
            "leverage", "dense_would_win", "ends", "searched", "six_n_d"} <= set(found)  # fmt: skip
    assert (found["asked"], found["law"]) == ("ludziejewski-2025", "ludziejewski")
    assert "other people's data" in err
    for name in ("tokens", "seconds", "gpu_hours", "joules", "money", "gco2", "loss"):
        each = found["quantities"][name]
        assert each["low"] <= each["value"] <= each["high"]
        assert each["kind"] == "modelled"
    assert found["quantities"]["money"]["value"] == pytest.approx(4.0)
    assert found["starts"].startswith("2026-12-01")
    experiment = load_experiment(file)
    slurm = experiment.slurm
    assert slurm.nodes * slurm.gpus_per_node == 2
    assert experiment.model.moe is not None
    assert experiment.model.moe.num_experts == found["best"]["experts"]
    tokens = experiment.train.steps * experiment.train.positions_per_step
    assert tokens == pytest.approx(found["best"]["tokens"], rel=0.02)
    code, out, err = command("plan", file, "--gpus", "2", "--gpu", "h100", "--layout", "own",
                             "--json")  # fmt: skip
    assert code == 0, err
    (planned,) = json.loads(out)["layouts"]
    for key in ("text", "step_time_s", "memory_bytes", "layout"):
        assert planned[key] == found["plan"][key]
    code, out, err = command("plan", file, "--gpus", "2", "--gpu", "h100", "--layout", "own",
                             *BUDGET[:2], "--json")  # fmt: skip
    assert code == 0, err
    joules = json.loads(out)["run"]["joules"]["value"]
    assert joules == pytest.approx(found["quantities"]["joules"]["value"], rel=1e-6)


@pytest.mark.parametrize("name", ["bf16,fp8", "any", "int4"])
def test_one_number_format_is_chosen_for(name: str) -> None:
    code, _, err = command("choose", *BUDGET, "--precision", name)
    assert code == 2
    assert err.strip().splitlines()[-1].startswith(f"moe: --precision '{name}': choose one of fp32")


def test_a_fitted_law_gives_intervals(tmp_path: Path) -> None:
    points = write_csv(made_points("chinchilla", 0.002), tmp_path / "points.csv")
    law = tmp_path / "law.json"
    assert command("fit", points, "--resamples", "20", "-o", law)[0] == 0
    code, out, err = command("predict", law, "--gpu-hours", "2", "--gpu", "h100", "--gpus", "1",
                             "--json")  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert found["interval"][0] < found["loss"] < found["interval"][1]
    low, high = found["best_intervals"]["active_parameters"]
    assert low <= found["best"]["active_parameters"] <= high
    assert "other people's data" not in err
    code, out, err = command("plan", "llama3-8b", "--gpus", "8", "--gpu", "h100", "--target-loss",
                             "2.2", "--law", law, "--json")  # fmt: skip
    assert code == 0, err
    plan = json.loads(out)
    assert plan["run"]["tokens"]["value"] == plan["target_loss"]["tokens"]
    assert "parameters is beyond the fitted points" in err


def test_answers_are_shown_as_tables() -> None:
    code, out, err = command("choose", *BUDGET, "--law", "hoffmann-2022", "--served-tokens", "1e9")
    assert code == 0, err
    assert "active parameters" in out
    assert "served over the model's life" in out
    assert "6 N D would choose" in out
    assert "80% interval is of the tokens alone" in out
    assert "the law's own error is not known" in out
    code, out, err = command("predict", "ludziejewski", "--memory-bytes", "1e9")
    assert code == 0, err
    assert "memory to serve" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("choose", "--gpu", "h100", "--gpus", "8"), "no limit: say at least one"),
        (("choose", "--budget-gpu-hours", "5"), "name the cards: --gpu and --gpus"),
        (("choose", *BUDGET, "--law", "ling"), "does not tell which model"),
        (("choose", *BUDGET, "--budget-money", "9"), "no price is known: give --price"),
        (("choose", *BUDGET, "--price", "2"), "--price: of no currency: give --currency"),
        (
            (
                "plan",
                "llama3-8b",
                "--gpus",
                "8",
                "--gpu",
                "h100",
                "--target-tokens",
                "1e12",
                "--price",
                "2",
            ),
            "of no currency",
        ),
        (
            ("plan", "llama3-8b", "--gpus", "8", "--gpu", "h100", "--target-tokens", "9"),
            "is less than one step of 4,194,304",
        ),
        (("choose", *BUDGET, "--start", "soon"), "--start 'soon': give a date"),
        (("choose", *BUDGET, "--served-tokens", "nan"), "--served-tokens nan"),
        (("choose", "--budget-joules", "9", "--gpu", "cpu", "--gpus", "1"), "power is unknown"),
        (("choose", *BUDGET, "--write", "/"), "--write /: "),
        (("predict", "ludziejewski", "--gpu-hours", "5"), "give --gpu and --gpus"),
        (("predict", "ludziejewski", "--flops", "1e20", "--price", "2"), "give --gpu and --gpus"),
        (("predict", "ludziejewski", "--flops", "1e20", "--gpus", "2"), "go together"),
        (("plan", "llama3-8b", "--gpus", "8", "--gpu", "h100", "--target-loss", "2"), "--law"),
        (("plan", "llama3-8b", "--gpus", "8", "--gpu", "h100", "--law", "ling"), "--target-loss"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], reason: str) -> None:
    code, out, err = command(*arguments, "--json")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert reason in err
