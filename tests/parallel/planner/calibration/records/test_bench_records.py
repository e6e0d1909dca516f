"""What a record must hold: every wrong number is one line that names file, line and field."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel.errors import ParallelError
from parallel.hardware.card import load_card
from parallel.planner.calibration.records.user_points import calibrate_card
from tests.support.bench_points import (
    attention_record,
    bench_records,
    collective_record,
    gemm_record,
    layer_record,
    step_record,
)
from tests.support.hostile_json import mutations

H100 = load_card("h100")
GOOD = {
    "gemm": gemm_record(H100, 4096),
    "attention": attention_record(H100, 4096),
    "layer": layer_record(H100, 16_384),
    "step": step_record(H100, 10**9),
    "collectives": collective_record(H100, "all_gather", 2**20),
}
FIRST = gemm_record(H100, 512)
TIMES = {
    "gemm": ("result", "implementations", 1, "sustained_s"),
    "attention": ("result", "backends", 1, "forward_s", "median"),
    "layer": ("result", "routing", 1, "backward_s", "median"),
    "step": ("result", "split_s", "optimizer"),
    "collectives": ("result", "time_s", "median"),
}
SIZES = {
    "gemm": ("case", "m"),
    "attention": ("case", "seq_len"),
    "layer": ("case", "tokens"),
    "step": ("result", "parameters", "total_parameters"),
    "collectives": ("case", "bytes"),
}


def changed(bench: str, keys: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD[bench])
    part: Any = document
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return document


def message(row: dict[str, Any]) -> str:
    with pytest.raises(ParallelError) as caught:
        calibrate_card(H100, bench_records([FIRST, row]))
    text = str(caught.value)
    assert "\n" not in text and text.isprintable()
    return text


@pytest.mark.parametrize("bench", GOOD)
@pytest.mark.parametrize(
    "value", [0, -1, True, "1", None, [], {}, float("nan"), float("inf"), 1e300, 1e-300]
)
def test_a_time_or_a_size_that_cannot_be_is_told(bench: str, value: Any) -> None:
    for keys in (TIMES[bench], SIZES[bench]):
        if value is None and keys[-1] == "sustained_s":
            continue
        text = message(changed(bench, keys, value))
        assert text.startswith("f: line 2: ")
        assert ".".join(map(str, keys)) in text


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({}, "f: line 2: no record of moe bench: remove the line"),
        ({"bench": 3}, "no record of moe bench"),
        ({"bench": "gemm"}, "format None, and this moescale reads 1: measure it again"),
        (GOOD["gemm"] | {"format": True}, "format True, and"),
        (GOOD["gemm"] | {"format": 2}, "format 2, and this moescale reads 1"),
        (GOOD["gemm"] | {"conditions": {}}, "conditions.hardware: Field required"),
        (GOOD["gemm"] | {"conditions": {"hardware": 3}}, "hardware (3): no object of keys"),
        (
            GOOD["gemm"] | {"case": GOOD["gemm"]["case"] | {"dtype": "bf16\n"}},
            r"case.dtype ('bf16\n'): String should match",
        ),
        (GOOD["gemm"] | {"result": {"implementations": []}}, "result.implementations ([])"),
        (
            {k: v for k, v in GOOD["layer"].items() if k != "case"},
            "f: line 2: case (None): no object of keys: measure",
        ),
        (
            GOOD["collectives"] | {"case": {"operation": "all_gather", "bytes": 4, "ranks": 2}},
            "case.nodes: Field required: measure it again with this moescale",
        ),
    ],
)
def test_what_is_no_record_of_this_moescale_is_told(row: dict[str, Any], named: str) -> None:
    assert named in message(row)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(sorted(GOOD)).flatmap(lambda bench: mutations(GOOD[bench])))
def test_any_damage_is_one_line_or_no_damage(row: Any) -> None:
    rows = [FIRST, row if isinstance(row, dict) else {}]
    try:
        found = calibrate_card(H100, bench_records(rows))
    except ParallelError as error:
        assert "\n" not in str(error)
    else:
        assert found.kinds


@pytest.mark.parametrize(
    ("hardware", "named"),
    [
        ({"name": "NVIDIA H200"}, "measured on 'NVIDIA H200', not H100: say --gpu h200"),
        ({"name": "Graphics X"}, "give records of H100, or add the name to aliases"),
        ({"name": None}, "f: line 2: conditions.hardware.name is null: which machine"),
        ({"device": "cpu", "name": "EPYC"}, "on a cpu device, 'EPYC', which calibrates no H100"),
        ({"device": "tpu"}, "conditions.hardware.device ('tpu')"),
        (
            {"name": "h100-sxm"},
            "'h100-sxm', and f: line 1 on 'NVIDIA H100 80GB HBM3': give records",
        ),
    ],
)
def test_records_of_another_device_are_refused(hardware: dict[str, Any], named: str) -> None:
    row = copy.deepcopy(GOOD["gemm"])
    row["conditions"]["hardware"] |= hardware
    assert named in message(row)


def test_a_cpu_calibrates_a_cpu_with_the_threads_of_one_process() -> None:
    card = load_card("cpu")

    def row(m: int, threads: int | None) -> dict[str, Any]:
        one = gemm_record(card, m, "fp32")
        one["conditions"]["hardware"] = {
            "device": "cpu", "name": "Xeon", "threads": threads, "ranks": 1,
        }  # fmt: skip
        return one

    assert calibrate_card(card, bench_records([row(512, 2), row(1024, 2)])).device == "Xeon"
    with pytest.raises(
        ParallelError, match="line 2: measured with 1 threads, and f: line 1 with 2"
    ):
        calibrate_card(card, bench_records([row(512, 2), row(1024, 1)]))
    with pytest.raises(ParallelError, match="line 1: conditions.hardware.threads is not there"):
        calibrate_card(card, bench_records([row(512, None), row(1024, None)]))
    with pytest.raises(ParallelError, match="which calibrates no CPU"):
        calibrate_card(card, bench_records([FIRST]))
