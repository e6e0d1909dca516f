"""Fine-tuning and preference tuning: the same under every layout, and what they are said to be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import run_ranks
from runs import train_run
from training import Curve, assemble, train_curve, worst_difference
from tuning import tune, write_chats, write_pairs

pytestmark = pytest.mark.engine

LOSS, PARAMETER = 1e-5, 1e-4
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "tp2_ep2": (2, {"tp": 2, "ep": 2}),
    "pp2": (2, {"pp": 2}),
    "cp2": (2, {"cp": 2}),
    "dp2": (2, {}),
}


@pytest.fixture(scope="module")
def base(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, pre-trained under another layout than any it is tuned under."""
    place = tmp_path_factory.mktemp("base") / "run"
    train_run(store, place, 2, layout={"ep": 2}, train={"steps": 10})
    return place


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tuning")
    return {"sft": write_chats(folder), "dpo": write_pairs(folder)}


@pytest.fixture(scope="module", params=["sft", "dpo"])
def alone(request: pytest.FixtureRequest, base: Path, stores: dict[str, Path]) -> tuple[str, Curve]:
    mode = request.param
    return mode, run_ranks(1, train_curve, tune(mode, stores[mode], init=str(base)))[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_agree(
    layout: str, alone: tuple[str, Curve], base: Path, stores: dict[str, Path]
) -> None:
    mode, expected = alone
    num_ranks, parallel = LAYOUTS[layout]
    experiment = tune(mode, stores[mode], parallel, init=str(base))
    curves = run_ranks(num_ranks, train_curve, experiment)
    for curve in curves:
        np.testing.assert_allclose(curve.losses, expected.losses, rtol=LOSS)
        np.testing.assert_allclose(curve.grad_norms, expected.grad_norms, rtol=10 * LOSS)
        for row, other in zip(curve.router_losses, expected.router_losses, strict=True):
            assert row == pytest.approx(other, rel=1e-4)
    trained = assemble([curve.parameters for curve in curves])
    difference, name = worst_difference(assemble([expected.parameters]), trained)
    assert difference < PARAMETER, name
