"""Which layouts megatron-core can run a forward beside a backward pass with."""

from dataclasses import replace
from typing import Any

import pytest

from parallel.layout.layout import Layout
from parallel.layout.validation import layout_faults
from tests.support.model_shapes import BATCH, SPARSE


def faults(mtp_layers: int = 0, **layout: Any) -> list[str]:
    shape = replace(SPARSE, mtp_layers=mtp_layers)
    laid = Layout(**({"ep": 2} | layout), overlap_experts=True)
    return layout_faults(laid, shape, BATCH, num_ranks=4)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"pp": 2, "vpp": 2},
        {"pp": 2, "vpp": 2, "mtp_layers": 1},
        {"recompute": "selective", "recompute_modules": ("moe_act",)},
        {"dispatcher": "flex"},
    ],
    ids=str,
)
def test_possible(layout: dict[str, Any]) -> None:
    assert faults(**layout) == []


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ({"ep": 1}, "needs ep > 1, not ep=1: raise ep"),
        ({"dispatcher": "allgather"}, 'does not go with dispatcher="allgather"'),
        ({"pp": 2}, "with pp=2 needs the interleaved schedule: set vpp >= 2"),
        ({"recompute": "full"}, 'does not go with recompute="full"'),
        (
            {"recompute": "selective", "recompute_modules": ("moe",)},
            'recompute_modules that have "moe"',
        ),
        ({"mtp_layers": 1}, "not mtp_layers=1 with pp=1"),
        ({"pp": 2, "vpp": 2, "mtp_layers": 2}, "not mtp_layers=2 with pp=2"),
    ],
    ids=str,
)
def test_impossible(layout: dict[str, Any], says: str) -> None:
    (fault,) = faults(**layout)
    assert fault.startswith("overlap_experts=true ") and says in fault
