"""Emulated FP8 against a slow reference, and in training; what runs is recorded."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from parallel.layout.layout import Layout
from parallel.precision.recipes import Precision
from tests.support.distributed import run_ranks
from tests.support.fault_injection import assert_same_parameters, record, rows, run
from tests.support.layout_equivalence import make

TRAIN = {"steps": 4, "warmup_steps": 1, "global_batch_size": 4, "checkpoint_interval": 2}
SCALINGS = ["current", "delayed", "blockwise", "mxfp8"]


def _codes(exponent_bits: int, mantissa_bits: int, largest: float) -> list[float]:
    """Every finite magnitude of a format, by its definition (arXiv:2209.05433, table 1)."""
    bias = 2 ** (exponent_bits - 1) - 1
    steps = 2**mantissa_bits
    values = [m / steps * 2.0 ** (1 - bias) for m in range(steps)]
    for exponent in range(1, 2**exponent_bits):
        values += [(1 + m / steps) * 2.0 ** (exponent - bias) for m in range(steps)]
    return [value for value in values if value <= largest]


CODES = {"e4m3": _codes(4, 3, 448.0), "e5m2": _codes(5, 2, 57344.0)}


def _nearest(x: float, number_format: str) -> float:
    """The nearest code; of two equally near ones the even, the largest beyond the end."""
    codes = CODES[number_format]
    magnitude = min(abs(x), codes[-1])
    best = min(range(len(codes)), key=lambda i: (abs(codes[i] - magnitude), i % 2))
    return math.copysign(codes[best], x)


def _reference(
    x: NDArray[Any], number_format: str, scaling: str, dim: int, is_weight: bool
) -> NDArray[Any]:
    """Quantize number by number, block by block."""
    largest = CODES[number_format][-1]
    size = {"current": None, "blockwise": 128, "mxfp8": 32}[scaling]
    square = is_weight and scaling == "blockwise"
    out = np.empty_like(x)
    step = [size if square or dim == axis else 1 for axis in (0, 1)]
    if size is None:
        step = list(x.shape)
    for i in range(0, x.shape[0], step[0]):
        for j in range(0, x.shape[1], step[1]):
            block = x[i : i + step[0], j : j + step[1]]
            amax = float(np.abs(block).max())
            scale = np.float32(1.0)
            if amax > 0 and scaling == "current":
                scale = np.float32(largest) / np.float32(amax)
            elif amax > 0 and scaling == "blockwise":
                scale = np.float32(2.0 ** math.floor(math.log2(largest / amax)))
            elif amax > 0:
                scale = np.float32(2.0 ** -math.ceil(math.log2(amax / largest)))
            values = [[_nearest(float(v * scale), number_format) for v in row] for row in block]
            out[i : i + step[0], j : j + step[1]] = np.array(values, np.float32) / scale
    return out


def _quantized(x: NDArray[Any], *how: Any) -> NDArray[Any]:
    from moe.model.fp8.quantization import quantize_dequantize

    number_format, scaling, dim, is_weight = how
    values: NDArray[Any] = quantize_dequantize(
        torch.from_numpy(x), number_format, scaling, dim=dim, is_weight=is_weight
    ).numpy()
    return values


def test_codes_are_all_codes_of_the_formats() -> None:
    assert (len(CODES["e4m3"]), len(CODES["e5m2"])) == (127, 124)
    assert [CODES["e4m3"][1], CODES["e5m2"][1]] == [2.0**-9, 2.0**-16]


@pytest.mark.parametrize("scaling", ["current", "blockwise", "mxfp8"])
@pytest.mark.parametrize("number_format", ["e4m3", "e5m2"])
def test_quantization_equals_the_reference(scaling: str, number_format: str) -> None:
    chance = np.random.default_rng(3)
    x = chance.standard_normal((40, 150)) * np.exp(4 * chance.standard_normal((40, 150)))
    x = x.astype(np.float32)
    x[3] = 0.0
    for dim, is_weight in ((1, False), (0, False), (1, True)):
        got = run_ranks(1, _quantized, x, number_format, scaling, dim, is_weight)[0]
        expected = _reference(x, number_format, scaling, dim, is_weight)
        np.testing.assert_allclose(got, expected, rtol=3e-7)


def _gradients(scaling: str) -> list[NDArray[Any]]:
    from moe.model.fp8.emulation import Fp8Emulation, MatmulId, fp8_linear

    emulation = Fp8Emulation(Precision(fp8="emulated", fp8_scaling=scaling), 1, ["only"])  # type: ignore[arg-type]
    x, weight, grad_output = _operands()
    output = fp8_linear(x, weight, emulation, MatmulId(0, 0))
    output.backward(grad_output)
    assert x.grad is not None and weight.grad is not None
    return [t.detach().numpy() for t in (output, x.grad, weight.grad)]


def _operands() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(2)
    x = torch.randn(36, 40, generator=chance).requires_grad_()
    weight = torch.randn(33, 40, generator=chance).requires_grad_()
    return x, weight, torch.randn(36, 33, generator=chance)


@pytest.mark.parametrize("scaling", ["current", "blockwise", "mxfp8"])
def test_all_three_matmuls_take_quantized_inputs(scaling: str) -> None:
    x, weight, grad_output = (t.detach().numpy() for t in _operands())
    backward = "e5m2" if scaling == "current" else "e4m3"

    def q(values: NDArray[Any], dim: int, kind: str = "e4m3", weight: bool = False) -> Any:
        return _reference(values, kind, scaling, dim, weight).astype(np.float64)

    expected = [
        q(x, 1) @ q(weight, 1, weight=True).T,
        q(grad_output, 1, backward) @ q(weight, 0, weight=True),
        q(grad_output, 0, backward).T @ q(x, 0),
    ]
    for got, reference in zip(run_ranks(1, _gradients, scaling)[0], expected, strict=True):
        np.testing.assert_allclose(got, reference, rtol=1e-4, atol=1e-4)


def _delayed() -> list[float]:
    from moe.model.fp8.emulation import Fp8Emulation, MatmulId, fp8_linear
    from parallel.engine.start import start_engine

    start_engine(Layout(device="cpu"), seed=0)
    emulation = Fp8Emulation(Precision(fp8="emulated", fp8_scaling="delayed"), 1, ["only"])
    x = torch.full((1, 1), 1000.0)
    weight = torch.ones(1, 1, requires_grad=True)
    outputs = []
    for _ in range(2):
        outputs.append(float(fp8_linear(x, weight, emulation, MatmulId(0, 0))))
        emulation.end_step()
    return outputs


def test_delayed_scaling_uses_the_amax_of_the_step_before() -> None:
    # The first step's scale is 1, so that 1000 saturates at E4M3's 448.
    assert run_ranks(1, _delayed)[0] == pytest.approx([448.0, 1000.0])


@pytest.mark.parametrize(
    "scaling",
    [pytest.param(one, marks=pytest.mark.engine if one == "current" else ()) for one in SCALINGS],
)
def test_an_emulated_run_trains_near_fp32_and_resumes_bit_by_bit(
    scaling: str, store: Path, tmp_path: Path
) -> None:
    precision = {"fp8": "emulated", "fp8_scaling": scaling, "fp8_keep_last": 1}
    experiment = make(store, train=TRAIN, precision=precision)
    parts = run(1, experiment, tmp_path / "run")
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    fp8 = record(tmp_path / "run")["execution"]["fp8"]
    # Layer 1 is dense (4 products), two sparse layers have experts and shared experts (6 each);
    # the last layer stays as it is.
    assert (fp8["recipe"], fp8["scaling"], fp8["products"]) == ("emulated", scaling, 16)
    again = run(1, experiment, tmp_path / "run", from_step=2)
    assert_same_parameters(again, parts)
    if scaling == "current":
        run(1, make(store, train=TRAIN), tmp_path / "fp32")
        exact = [row["loss"] for row in rows(tmp_path / "fp32")]
        assert losses != exact
        np.testing.assert_allclose(losses, exact, rtol=0.02)
        for name, layout in {"tp": {"tp": 2}, "pp": {"pp": 2}}.items():
            run(2, make(store, layout, train=TRAIN, precision=precision), tmp_path / name)
            laid_out = [row["loss"] for row in rows(tmp_path / name)]
            np.testing.assert_allclose(laid_out, losses, rtol=1e-5 if name == "pp" else 0.02)
