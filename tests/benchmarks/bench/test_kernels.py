"""`moe bench gemm` and `moe bench attention`: what is multiplied, and in which number format."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bench.attention import rejection_reason
from benchmarks.bench.gemm_shapes import Gemm, model_gemms, parse_gemm
from benchmarks.bench.kernel_timing import burst_times, sustained_time
from benchmarks.bench.matmul import check_sizes, kernels
from benchmarks.errors import BenchmarkError
from moe.config.experiment import load_model
from moe.config.presets.catalog import preset_names
from moe.cost.ledger import ledger
from parallel.hardware.card import load_card
from parallel.planner.calibration.records.user_points import calibrate_card
from tests.support.bench_commands import KERNELS, run_commands
from tests.support.bench_points import bench_records
from tests.support.distributed import run_ranks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = run_ranks(1, run_commands, KERNELS)[0]
    return found


def records(results: dict[str, Any], name: str) -> list[Any]:
    assert results[name]["code"] == 0, results[name]["error"]
    return list(json.loads(results[name]["out"]))


@pytest.mark.parametrize("name", preset_names())
def test_products_of_a_model_are_its_matmul_parameters(name: str) -> None:
    """Per token: what the ledger counts as active in matmuls, and the router."""
    model = load_model(name)
    # Products that a token of a layer of either kind meets, summed over all layers.
    sparse, dense = sum(model.sparse_layers), model.num_layers - sum(model.sparse_layers)
    weights = 0
    for gemm in model_gemms(model, tokens=model.moe.num_experts if model.moe else 1):
        tokens = model.moe.num_experts if model.moe else 1
        per_token = gemm.flops // (2 * tokens)
        kind = gemm.role.split()[0]
        count = {"head": 1, "router": 0, "experts": sparse, "shared": sparse, "dense": dense}
        weights += per_token * count.get(kind, model.num_layers)
    counted = ledger(model, 1)
    of_mtp = sum(c.active_matmul_parameters for c in counted.components if "MTP" in c.name)
    assert weights == counted.active_matmul_parameters - of_mtp


@given(rows=st.integers(1, 10_000), groups=st.integers(1, 300))
def test_rows_are_spread_evenly_and_none_is_lost(rows: int, groups: int) -> None:
    spread = Gemm(role="experts", m=rows, n=1, k=1, groups=groups).rows
    assert (len(spread), sum(spread)) == (groups, rows)
    assert max(spread) - min(spread) <= 1


def test_shapes_are_read() -> None:
    assert parse_gemm("8192x4096x2048") == Gemm(role="given", m=8192, n=4096, k=2048)
    assert parse_gemm("4x16x32x64") == Gemm(role="given", m=64, n=32, k=64, groups=4)


@pytest.mark.parametrize("text", ["", "8", "8x8", "8x8x8x8x8", "8x-8x8", "0x8x8", "8x²x8", "axbxc"])
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(BenchmarkError, match="write the three sizes"):
        parse_gemm(text)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp8", "fp64"])
def test_every_implementation_multiplies_the_same_operands(dtype: str) -> None:
    """torch multiplies FP8 on a CPU too, slowly: the operands' layout is what a GPU gets."""
    gemm = Gemm(role="experts", m=50, n=32, k=64, groups=3)
    found = kernels(gemm, dtype, CPU)
    assert list(found) == (["mm", "grouped_mm"] if dtype in ("fp32", "bf16") else ["mm"])
    products: Any = found["mm"]()
    assert [len(product) for product in products] == [17, 17, 16]
    joined = torch.cat(products)
    assert joined.dtype == {"fp64": torch.float64, "fp32": torch.float32}.get(dtype, torch.bfloat16)
    # Sums of 64 products of normal numbers.
    assert float(joined.double().std()) == pytest.approx(8, rel=0.1)
    if "grouped_mm" in found:
        torch.testing.assert_close(found["grouped_mm"](), joined, rtol=0.02, atol=0.05)


@pytest.mark.parametrize(
    ("gemm", "dtype", "named"),
    [
        (Gemm(role="qkv", m=8, n=24, k=64), "fp8", "qkv: n = 24 is not a multiple of 16"),
        (Gemm(role="proj", m=8, n=32, k=40), "fp8", "proj: k = 40 is not a multiple of 16"),
        (Gemm(role="up", m=8, n=6, k=8, groups=2), "fp32", "grouped products in fp32"),
        (Gemm(role="up", m=8, n=8, k=8, groups=9), "fp32", "8 rows leave some of 9 groups"),
    ],
)
def test_sizes_that_no_kernel_takes_are_refused(gemm: Gemm, dtype: str, named: str) -> None:
    with pytest.raises(BenchmarkError, match=named):
        check_sizes(gemm, dtype)


def test_repeats_are_counted_and_the_second_half_is_timed() -> None:
    calls: list[None] = []
    assert len(burst_times(lambda: calls.append(None), CPU, repeats=3, warmup=2)) == 3
    before = len(calls)
    held = sustained_time(lambda: calls.append(None), CPU, seconds=0.0, call_s=1.0)
    # One call in each half, however short the time.
    assert len(calls) - before == 2
    assert held.call_s == held.measured_s > 0


def test_gemm_names_product_format_and_both_rates(results: dict[str, Any]) -> None:
    found = records(results, "gemm")
    cases = [(r["case"]["role"], r["case"]["dtype"]) for r in found]
    model = ["qkv", "proj", "experts up", "experts down", "head"]
    # The router multiplies in FP32 whatever the model does, and once.
    assert cases == [
        ("given", "fp32"), ("qkv", "fp32"), ("proj", "fp32"), ("router", "fp32"),
        ("experts up", "fp32"), ("experts down", "fp32"), ("head", "fp32"),
        ("given", "bf16"), *((role, "bf16") for role in model),
    ]  # fmt: skip
    for record in found:
        result = record["result"]
        assert record["conditions"]["hardware"]["device"] == "cpu"
        names = [row["implementation"] for row in result["implementations"]]
        assert names == (["mm", "grouped_mm"] if record["case"]["groups"] > 1 else ["mm"])
        assert min(row["time_over_fastest"] for row in result["implementations"]) == 1
        for row in result["implementations"]:
            burst_s = row["burst_s"]["median"]
            assert row["burst_flops_per_s"] == pytest.approx(result["flops"] / burst_s)
            assert row["sustained_time_over_burst"] == pytest.approx(row["sustained_s"] / burst_s)
            assert row["sustained_power"]["unit"] == "W"
            assert row["share_of_datasheet"] is None
        name = {"fp32": "float32", "bf16": "bfloat16"}[record["case"]["dtype"]]
        assert result["peak"]["source"].startswith(f"measured: {name} product")
        precision = {"fp32": "highest", "bf16": None}[record["case"]["dtype"]]
        assert result["fp32_matmul_precision"] == precision


def test_attention_puts_backends_beside_each_other(results: dict[str, Any]) -> None:
    model, given_shape = records(results, "attention")
    assert (model["case"]["num_heads"], model["case"]["num_kv_heads"]) == (4, 2)
    assert (given_shape["case"]["model"], given_shape["case"]["qk_head_dim"]) == ("given", 8)
    for record in (model, given_shape):
        result = record["result"]
        assert [row["backend"] for row in result["backends"]] == [
            "torch's choice", "flash", "math"
        ]  # fmt: skip
        assert [row["backend"] for row in result["not_available"]] == ["cudnn", "efficient"]
        assert all(row["reason"] for row in result["not_available"])
        assert min(row["time_over_fastest"] for row in result["backends"]) == 1
        case = record["case"]
        # Two products of S x S x D for each head, 2 FLOPs each, half of them masked.
        flops = 2 * 2 * case["num_heads"] * 16**2 * case["qk_head_dim"] / 2
        assert result["forward_flops"] == flops
        for row in result["backends"]:
            rate = flops / row["forward_s"]["median"]
            assert row["forward_flops_per_s"] == pytest.approx(rate)
            assert math.isclose(
                row["backward_flops_per_s"], 2.5 * flops / row["backward_s"]["median"]
            )


def test_a_plan_is_calibrated_on_what_was_measured(results: dict[str, Any]) -> None:
    measured = records(results, "gemm") + records(results, "attention")
    found = calibrate_card(load_card("cpu"), bench_records(measured))
    assert set(found.kinds) == {"gemm.fp32", "gemm.bf16", "attention.forward", "attention.backward"}
    assert sum(found.unused.values()) == sum(
        record["case"].get("groups", 1) > 1 for record in measured
    )


def test_tables_and_mistakes(results: dict[str, Any]) -> None:
    for name, word in {
        "gemm table": "32 x 16 x 32",
        "attention table": "not available here",
    }.items():
        assert results[name]["code"] == 0, results[name]["error"]
        assert word in results[name]["out"]
    mistakes = {
        "gemm in fp8": "--dtype fp8: a CPU only emulates it",
        "gemm of nothing": "name a model, or give --shape",
        "gemm in two formats": "--set precision...: it changes no kernel alone: use --dtype",
        "unaligned groups": "n = 15 is not a multiple of 8",
        "attention of nothing": "name a model, or give --heads",
    }
    for name, text in mistakes.items():
        assert results[name]["code"] == 2
        assert text in results[name]["error"]
        assert "\n" not in results[name]["error"]


def test_why_a_backend_is_missing_is_its_own_reason() -> None:
    """As torch 2.13 warns on a GPU where only one backend is allowed."""
    warned = [
        "Memory efficient kernel not used because: (Triggered internally at sdp_utils.cpp:1.)",
        "Attn_mask is on a different device. (Triggered internally at sdp_utils.cpp:2.)",
        "Flash attention kernel not used because: (Triggered internally at sdp_utils.cpp:3.)",
        "Flash attention has been runtime disabled. (Triggered internally at sdp_utils.cpp:4.)",
    ]
    assert rejection_reason(warned, "No available kernel. Aborting execution.") == (
        "Attn_mask is on a different device."
    )
    assert (
        rejection_reason([], "No available kernel.  Aborting execution.") == "No available kernel"
    )
