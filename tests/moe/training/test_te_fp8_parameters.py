"""Weights that are kept in FP8 (`precision.fp8_parameters`), beside weights in BF16.

Both round the same masters by the same recipe: losses, weights and optimizers are equal to the bit.
Gradients are not clipped, since their norm is a sum in the order of buffers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe.config.experiment import Experiment
from parallel.precision.recipes import Fp8Scaling
from tests.support.checkpoint_content import checkpoint_content
from tests.support.fault_injection import rows
from tests.support.transformer_engine.fp8 import need_card
from tests.support.transformer_engine.runs import SAVED_AT, STEPS, Job, experiment, train_all

pytestmark = [pytest.mark.engine, pytest.mark.needs("transformer_engine")]
SCALINGS: tuple[Fp8Scaling, ...] = ("delayed", "current", "blockwise", "mxfp8")
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}), "dp2": (2, {}), "tp2": (2, {"tp": 2}), "ep2": (2, {"ep": 2}), "pp2": (2, {"pp": 2}),
    "overlap": (2, {"overlap_grad_reduce": True, "overlap_param_gather": True}),
}


def wanted(store: Path, fp8: str, layout: Any, *, in_fp8: bool, **train: Any) -> Experiment:
    return experiment(
        store, "te", layout, train={"clip_grad": 0} | train, dtype="bf16", fp8=fp8, fp8_parameters=in_fp8
    )


def differing(run: Path, other: Path, step: int) -> list[str]:
    found, expected = (checkpoint_content(x / f"checkpoints/step-{step:08d}") for x in (run, other))
    assert found.keys() == expected.keys()
    return [key for key, x in found.items() if x.tobytes() != expected[key].tobytes()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_equal(scaling: Fp8Scaling, layout: str, store: Path, tmp_path: Path) -> None:
    need_card(scaling)
    num_ranks, ways = LAYOUTS[layout]
    plain, in_fp8 = tmp_path / "plain", tmp_path / "in_fp8"
    for d in (plain, in_fp8):
        train_all([Job(wanted(store, scaling, ways, in_fp8=d == in_fp8), d)], num_ranks)
    for d, e in ((plain, plain), (in_fp8,in_fp8), (plain, in_fp8), (in_fp8, plain)):
        train_all([Job(wanted(store, scaling, ways, in_fp8=d == in_fp8), tmp_path/f"{d.name}{e.name}", e)], num_ranks)
    a, b = ([row["loss"] for row in rows(x)] for x in (in_fp8, plain))
    print(scaling, layout, a == b, a, b, {s: differing(in_fp8, plain, s) for s in (SAVED_AT, STEPS)})
    for d, e in ((plain, plain), (in_fp8,in_fp8), (plain, in_fp8), (in_fp8, plain)):
        print("    resumed", d.name, "from", e.name, differing(tmp_path/f"{d.name}{e.name}", d, STEPS)[:3])


def test_zz(store, tmp_path):
    from tests.support.layout_equivalence import FullTensors
    for b in (False, True):
        train_all([Job(wanted(store, "mxfp8", {}, in_fp8=b), tmp_path / str(b))], 2)
    f, e = (checkpoint_content(tmp_path / str(b) / "checkpoints/step-00000002") for b in (True, False))
    for k in f:
        if f[k].tobytes() != e[k].tobytes():
            m = "optimizer.state.param." + k
            d = f[k] != e[k]
            print(k, f[k].shape, d.sum(), np.argwhere(d)[:3], f[k][d][:4], e[k][d][:4], f[m][d][:4], e[m][d][:4])
