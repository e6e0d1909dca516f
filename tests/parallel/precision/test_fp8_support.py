"""Native FP8: which cards and sizes support which recipe."""

from dataclasses import replace
from typing import Any

import pytest

from parallel.errors import ParallelError
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.precision.fp8_support import check_fp8, fp8_faults
from parallel.precision.recipes import Precision
from tests.support.model_shapes import SPARSE

NATIVE = {"kernels": "te", "dtype": "bf16"}
BATCH = BatchSize(seq_len=4096, micro_batch_size=1, global_batch_size=8)
ALIGNED = replace(
    SPARSE, hidden_size=64, v_head_dim=32, ffn_hidden_size=96, expert_ffn_hidden_size=64,
    shared_expert_ffn_hidden_size=128,
)  # fmt: skip


@pytest.mark.parametrize(
    ("fp8", "capability", "message"),
    [
        (
            "current",
            (8, 0),
            'needs compute capability 8.9 or later.*8.0: set precision.fp8 = "none"',
        ),
        ("blockwise", (8, 9), 'needs compute capability 9.0.*choose from "delayed", "current"'),
        ("mxfp8", (9, 0), "needs compute capability 10.0.*B200"),
        ("current", (9, 0), "hidden_size = 8 is not a multiple of 16"),
        ("mxfp8", (10, 0), "hidden_size = 8 is not a multiple of 32"),
    ],
)
def test_cards_and_sizes_that_do_not_support_a_recipe(
    fp8: Any, capability: tuple[int, int], message: str
) -> None:
    with pytest.raises(ParallelError, match=message):
        check_fp8(Precision(**NATIVE, fp8=fp8), Layout(), SPARSE, BATCH, capability)
    check_fp8(Precision(), Layout(), SPARSE, BATCH, capability)
    check_fp8(Precision(fp8="emulated"), Layout(), SPARSE, BATCH, capability)


def test_every_dimension_on_a_rank_counts() -> None:
    native = Precision(**NATIVE, fp8="mxfp8")
    assert fp8_faults(native, Layout(), ALIGNED, BATCH) == []
    found = fp8_faults(native, Layout(tp=2, etp=4, cp=2), ALIGNED, replace(BATCH, seq_len=96))
    assert [fault.partition(": ")[2].partition(" is not")[0] for fault in found] == [
        "seq_len * micro_batch_size / cp = 48",
        "ffn_hidden_size / tp = 48",
        "moe.expert_ffn_hidden_size / etp = 16",
    ]
    # The blocks of 128 may be cut off at the end of a matrix.
    blockwise = Precision(**NATIVE, fp8="blockwise")
    assert fp8_faults(blockwise, Layout(tp=2, etp=4), ALIGNED, BATCH, (9, 0)) == []
