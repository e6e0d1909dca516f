"""Joules against MLPerf's measured nodes, and by hand."""

import csv
from dataclasses import dataclass
from math import log
from pathlib import Path

import pytest

from parallel.errors import ParallelError
from parallel.hardware.card import load_card
from parallel.hardware.power import Phase, Power
from parallel.planner.energy import Estimate, Site, StepEnergy, step_energy

HELD_OUT = Path(__file__).parent / "held_out"
FP8_RATE = {"h100": 1.2e15, "b200": 2.8e15}
"""FLOP/s of long FP8 products (machine_points.csv; B200: its share of the peak)."""
ATTENTION_RATE = {"h100": 5e14, "b200": 9e14}
MEMORY_RATE = {"h100": 3e12, "b200": 6e12}
STREAMED_BYTES = 200
"""Bytes for each token, layer and hidden number of all norms, activations, sums and casts."""


@dataclass(frozen=True)
class Model:
    matrix_flops: float
    attention_flops: float
    streamed: float
    """Tokens' hidden numbers over the layers."""


GPT3 = Model(6 * 174.6e9, 6 * 96 * 12288 * 2048, 96 * 12288)
LORA = Model(4 * 69.0e9, 6 * 80 * 8192 * 8192, 80 * 8192)  # no gradients of base weights


def power_of(card: str) -> Power:
    power = load_card(card).power
    assert power is not None
    return power


def predicted(row: dict[str, str]) -> StepEnergy:
    """Return the energy of one unit: seconds measured, phases by FLOPs, the rest communication."""
    card = "b200" if row["gpu"].startswith("B200") else "h100"
    gpus = int(row["gpus"])
    measured, watts = float(row["nodes_joule_per_unit"]), float(row["node_w_mean_run"])
    node_seconds = measured / watts
    model, tokens = (GPT3, 1) if row["benchmark"] == "gpt3_175b" else (LORA, 8192)
    step = node_seconds / int(row["nodes"])
    seconds: dict[Phase, float] = {
        "matrix_product": tokens * model.matrix_flops / gpus / FP8_RATE[card],
        "attention": tokens * model.attention_flops / gpus / ATTENTION_RATE[card],
        "memory_bound": tokens * model.streamed * STREAMED_BYTES / gpus / MEMORY_RATE[card],
    }
    seconds["communication"] = step - sum(seconds.values())
    site = Site(cooling="air" if "air" in row["cooling"] else "liquid")
    return step_energy(power_of(card), seconds, num_gpus=gpus, tokens=1, site=site)


def read() -> list[dict[str, str]]:
    with (HELD_OUT / "power_node_mlperf.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["boundary"].startswith("AC")]


ROWS = read()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['benchmark']}-{row['gpu'][:4]}")
def test_measured_nodes(row: dict[str, str]) -> None:
    energy = predicted(row).nodes
    error = log(energy.value / float(row["nodes_joule_per_unit"]))
    assert abs(error) < (0.1 if row["benchmark"] == "gpt3_175b" else 0.2)


def test_most_measured_nodes_lie_in_the_interval() -> None:
    inside = [
        predicted(row).nodes.low <= float(row["nodes_joule_per_unit"]) <= predicted(row).nodes.high
        for row in ROWS
    ]
    assert len(inside) == 6 and sum(inside) >= 5


def test_boundaries_by_hand() -> None:
    power = power_of("h100").model_copy(
        update={"host_watts": 1600.0, "fan_watts": 800.0, "supply_efficiency": 0.96}
    )
    energy = step_energy(power, {"matrix_product": 2.0}, num_gpus=16, tokens=1000)
    assert energy.boards.value == pytest.approx(16 * 2 * 700 * 0.99)
    assert energy.nodes.value == pytest.approx((16 * 2 * 700 * 0.99 + 2 * 2 * 2400) / 0.96)
    assert energy.network.value == pytest.approx(16 * 2 * 120)
    assert energy.facility.value == pytest.approx(1.2 * (energy.nodes.value + energy.network.value))
    assert energy.limit_joules == 16 * 2 * 700
    assert energy.per_token()["boards"].value == pytest.approx(energy.boards.value / 1000)
    for each in (energy.boards, energy.nodes, energy.network, energy.facility):
        assert 0 < each.low < each.value < each.high
    single = step_energy(
        power,
        {"matrix_product": 2.0},
        num_gpus=8,
        tokens=1,
        site=Site(cooling="liquid", has_network=False),
    )
    assert single.network.value == 0
    assert single.nodes.value == pytest.approx((8 * 2 * 700 * 0.99 + 2 * 1600) / 0.96)
    assert any("PUE 1.2" in line for line in energy.assumptions)


def test_waiting_costs_less_than_work_and_independent_errors_partly_cancel() -> None:
    power = power_of("h100")
    busy = step_energy(power, {"matrix_product": 1.0}, num_gpus=8, tokens=1)
    mixed = step_energy(power, {"matrix_product": 0.5, "waiting": 0.5}, num_gpus=8, tokens=1)
    assert mixed.boards.value < busy.boards.value
    one = Estimate(value=10.0, low=7.0, high=13.0)
    both = one + one
    assert [both.low, both.value, both.high] == pytest.approx([20 - 18**0.5, 20, 20 + 18**0.5])


def test_what_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(ParallelError, match="power.limit_watts: unknown"):
        step_energy(power_of("cpu"), {"matrix_product": 1.0}, num_gpus=1, tokens=1)
    with pytest.raises(ParallelError, match=r"seconds \['waiting -1.0'\]"):
        step_energy(power_of("h100"), {"waiting": -1.0}, num_gpus=1, tokens=1)
    with pytest.raises(ParallelError, match="num_gpus 0"):
        step_energy(power_of("h100"), {"waiting": 1.0}, num_gpus=0, tokens=1)
