"""The `[precision]` section: combinations that contradict themselves are refused."""

from typing import Any

import pytest

from parallel.precision.recipes import Precision

NATIVE = {"kernels": "te", "dtype": "bf16"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fp8": "current"}, 'needs kernels = "te".*fp8 = "emulated" with fp8_scaling = "current"'),
        ({"fp8": "emulated", **NATIVE}, 'needs kernels = "torch"'),
        ({"fp8_scaling": "mxfp8"}, 'fp8_scaling does nothing with fp8 = "none"'),
        ({**NATIVE, "fp8": "mxfp8", "fp8_scaling": "mxfp8"}, 'goes with fp8 = "emulated"'),
        ({**NATIVE, "fp8": "delayed", "fp8_keep_first": 1}, 'use fp8 = "current"'),
    ],
)
def test_sections_that_contradict_themselves(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Precision(**values)


@pytest.mark.parametrize(
    ("values", "bits"),
    [({}, 32), ({"dtype": "bf16"}, 16), ({**NATIVE, "fp8": "mxfp8"}, 8), ({"fp8": "emulated"}, 8)],
)
def test_matmuls_take_numbers_of_so_many_bits(values: dict[str, Any], bits: int) -> None:
    assert Precision(**values).matmul_bits == bits
