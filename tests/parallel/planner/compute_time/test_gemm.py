"""Matrix products: a hand-worked one, bounds that hold for all, and the power limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.errors import ParallelError
from parallel.hardware.card import Card, load_card
from parallel.planner.calibration.card_parameters import with_parameters
from parallel.planner.compute_time.gemm import gemm_seconds, power_stretch
from parallel.planner.compute_time.linear import (
    linear_dgrad_seconds,
    linear_forward_seconds,
    linear_wgrad_seconds,
)

SIZE = st.integers(1, 40_000)
H100 = load_card("h100")


def plain_card() -> Card:
    """Return an H100 with one tile, full efficiency and no power limit."""
    plain = with_parameters(
        H100,
        {
            "matrix.bf16.efficiency": 1.0,
            "matrix.bf16.tile_seconds": 1e-6,
            "matrix.bf16.joules_per_flop": 0.0,
            "joules_per_byte": 0.0,
            "memory_efficiency": 1.0,
            "launch_seconds": 2e-6,
        },
    )
    kernels = plain.kernels.model_copy(update={"tiles": ((128, 256),)})
    return plain.model_copy(update={"kernels": kernels})


def test_a_product_worked_by_hand() -> None:
    # 64 x 32 = 2048 tiles of 128 x 256 over 132 SMs: 16 waves; a tile of k = 8192 takes
    # 2 * 128 * 256 * 8192 / (989.5e12 / 132) = 71.6 us, and 1 us to fill.
    compute = 16 * (2 * 128 * 256 * 8192 * 132 / 989.5e12 + 1e-6)
    memory = 2 * (3 * 8192 * 8192) / 3.35e12
    expected = 2e-6 + (compute**4 + memory**4) ** 0.25
    assert gemm_seconds(plain_card(), 8192, 8192, 8192, "bf16") == pytest.approx(expected)


def test_a_new_wave_costs_what_a_full_one_does() -> None:
    one = gemm_seconds(plain_card(), 128 * 11, 256 * 12, 8192, "bf16")  # 132 tiles
    more = gemm_seconds(plain_card(), 128 * 12, 256 * 12, 8192, "bf16")  # 144 tiles
    assert more / one == pytest.approx(2.0, rel=0.05)


def test_k_is_split_where_sms_would_idle() -> None:
    whole = plain_card()
    matrix = whole.kernels.matrix["bf16"].model_copy(update={"splits_k": False})
    kernels = whole.kernels.model_copy(update={"matrix": {"bf16": matrix}})
    unsplit = whole.model_copy(update={"kernels": kernels})
    assert gemm_seconds(whole, 128, 256, 65536, "bf16") < 0.5 * gemm_seconds(
        unsplit, 128, 256, 65536, "bf16"
    )


@given(m=SIZE, n=SIZE, k=SIZE, precision=st.sampled_from(["bf16", "fp8", "fp8-blockwise"]))
def test_no_product_beats_peak_or_memory(m: int, n: int, k: int, precision: str) -> None:
    seconds = gemm_seconds(H100, m, n, k, precision)
    peak = H100.rates.bf16 if precision == "bf16" else 2 * H100.rates.bf16
    assert seconds >= 2 * m * n * k / peak
    assert seconds >= 2 * m * n / H100.rates.memory_bytes_per_s


@given(m=SIZE, n=SIZE, k=SIZE)
def test_more_rows_never_take_less(m: int, n: int, k: int) -> None:
    assert gemm_seconds(H100, m + 1, n, k, "bf16") >= gemm_seconds(H100, m, n, k, "bf16")


def test_the_power_limit_holds_long_runs_back() -> None:
    sustained = gemm_seconds(H100, 8192, 8192, 8192, "bf16")
    burst = gemm_seconds(H100, 8192, 8192, 8192, "bf16", repetitions=1)
    assert 1.05 < sustained / burst < 1.3
    capped = H100.model_copy(update={"rates": H100.rates.model_copy(update={"board_watts": 500.0})})
    assert gemm_seconds(capped, 8192, 8192, 8192, "bf16") > 1.1 * sustained
    assert power_stretch(H100, seconds=1.0, joules=100.0) == 1.0
    unlimited = H100.model_copy(
        update={"rates": H100.rates.model_copy(update={"board_watts": None})}
    )
    assert power_stretch(unlimited, seconds=1.0, joules=1e6) == 1.0


def test_a_precision_that_a_card_lacks_is_told() -> None:
    with pytest.raises(ParallelError, match=r"'nvfp4': H100 has no .* choose fp32, bf16, fp8"):
        gemm_seconds(H100, 1, 1, 1, "nvfp4")
    with pytest.raises(ParallelError, match="'fp8': A100 has no"):
        gemm_seconds(load_card("a100"), 1, 1, 1, "fp8")
    with pytest.raises(ParallelError, match="'mxfp8': H200 has no"):
        gemm_seconds(load_card("h200"), 1, 1, 1, "mxfp8")
    with pytest.raises(ParallelError, match="'int3': H100 has no"):
        gemm_seconds(H100, 1, 1, 1, "int3")


def test_backward_products_take_the_mapped_shapes() -> None:
    tokens, columns, depth = 4096, 28672, 8192
    assert linear_dgrad_seconds(H100, tokens, columns, depth, "bf16") == gemm_seconds(
        H100, tokens, depth, columns, "bf16"
    )
    forward = linear_forward_seconds(H100, tokens, columns, depth, "bf16")
    wgrad = linear_wgrad_seconds(H100, tokens, columns, depth, "bf16")
    assert wgrad == pytest.approx(forward, rel=0.1)
    # Few tokens: the fp32 gradient, read and written, is what takes the time.
    few = linear_wgrad_seconds(H100, 128, columns, depth, "bf16")
    assert few >= 8 * columns * depth / H100.rates.memory_bytes_per_s
