"""One checkpoint, any kernels: runs go on in the other kernel set, and in another layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.checkpoint_content import checkpoint_content
from tests.support.fault_injection import rows
from tests.support.layout_equivalence import FullTensors, worst_difference
from tests.support.transformer_engine.runs import SAVED_AT, Job, experiment, train_all

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
DTYPES = ("fp32", "bf16")
TOLERANCE = {"fp32": 1e-5, "bf16": 0.02}
"""Of losses, relative."""
TP2 = {"tp": 2}


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by number format and kernel sets: `fp32_te_torch` was saved in the one, and ended in
    the other."""
    root = tmp_path_factory.mktemp("runs")

    def job(dtype: str, kernels: str, begun: str = "", layout: Any = None) -> Job:
        name = "_".join(filter(None, (dtype, begun, kernels, *(layout or ()))))
        source = root / f"{dtype}_{begun}" if begun else None
        return Job(experiment(store, kernels, layout, dtype=dtype), root / name, source)

    train_all([job(dtype, "torch") for dtype in DTYPES])
    begun = [("te", ""), ("te", "te"), ("te", "torch")]
    train_all([job(dtype, *how) for dtype in DTYPES for how in begun])
    for source in ("", "torch"):
        train_all([job("fp32", "te", source, TP2)], num_ranks=2)
    train_all([*(job(dtype, "torch", "te") for dtype in DTYPES), job("fp32", "torch", "te_tp")])
    return root


def content(run: Path, step: int = 2 * SAVED_AT) -> FullTensors:
    return checkpoint_content(run / f"checkpoints/step-{step:08d}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_save_the_same_tensors(dtype: str, runs: Path) -> None:
    ours, theirs = (content(runs / f"{dtype}_{kernels}", SAVED_AT) for kernels in ("torch", "te"))
    assert worst_difference(ours, theirs)[0] < {"fp32": 1e-3, "bf16": 0.3}[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_resumed_in_te_equals_uninterrupted(dtype: str, runs: Path) -> None:
    whole, resumed = content(runs / f"{dtype}_te"), content(runs / f"{dtype}_te_te")
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[key], resumed[key]) for key in whole)
    assert rows(runs / f"{dtype}_te")[SAVED_AT:] == rows(runs / f"{dtype}_te_te")


@pytest.mark.parametrize(
    ("begun", "resumed"),
    [(f"{dtype}_{begun}", f"{dtype}_{begun}_{then}") for dtype in DTYPES
     for begun, then in (("torch", "te"), ("te", "torch"))]
    + [("fp32_torch", "fp32_torch_te_tp"), ("fp32_te_tp", "fp32_te_tp_torch")],
)  # fmt: skip
def test_resumed_in_the_other_kernels_or_layout(begun: str, resumed: str, runs: Path) -> None:
    dtype = begun.partition("_")[0]
    wanted, losses = ([r["loss"] for r in rows(runs / name)] for name in (begun, resumed))
    assert losses == pytest.approx(wanted[SAVED_AT:], rel=TOLERANCE[dtype])
    if dtype == "fp32":
        assert worst_difference(content(runs / begun), content(runs / resumed))[0] < 1e-3
