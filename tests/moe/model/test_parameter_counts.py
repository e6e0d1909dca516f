"""The ledger and the memory model count what megatron-core builds, option by option."""

from typing import Any

import pytest

from moe.cost.ledger import ledger
from moe.cost.model_shape import shape_of
from parallel.layout.layout import Layout
from parallel.layout.model_shape import BatchSize
from parallel.layout.placement import place
from parallel.layout.validation import layout_faults
from parallel.planner.rank_parameters import rank_parameters
from parallel.precision.recipes import Precision
from tests.support.architecture_options import CONFIGS
from tests.support.distributed import run_ranks
from tests.support.model_shapes import coordinates
from tests.support.parameter_counts import count_parameters, engine_chunk_layers

pytestmark = pytest.mark.engine
LAYOUT = Layout(tp=2, pp=2, ep=2, device="cpu")
BATCH = BatchSize(seq_len=32, micro_batch_size=1, global_batch_size=2)
POSSIBLE = {
    name: model
    for name, model in CONFIGS.items()
    if not layout_faults(LAYOUT, shape_of(model), BATCH, num_ranks=4)
}


def test_only_models_that_the_layout_cannot_hold_are_excluded() -> None:
    assert set(CONFIGS) - set(POSSIBLE) == {"dense", "latent_dense", "predicting_tied"}


@pytest.fixture(scope="module")
def unsharded() -> dict[str, int]:
    counts: dict[str, int] = run_ranks(1, count_parameters, Layout(device="cpu"), CONFIGS)[0]
    return counts


@pytest.fixture(scope="module")
def sharded() -> list[dict[str, int]]:
    return run_ranks(4, count_parameters, LAYOUT, POSSIBLE)


@pytest.mark.parametrize("name", CONFIGS)
def test_ledger_counts_the_built_model(name: str, unsharded: dict[str, int]) -> None:
    assert ledger(CONFIGS[name], 32).total_parameters == unsharded[name]


@pytest.mark.parametrize("name", POSSIBLE)
def test_memory_model_counts_each_ranks_parameters(
    name: str, sharded: list[dict[str, int]]
) -> None:
    shape = shape_of(POSSIBLE[name])
    for rank, counts in enumerate(sharded):
        stage = coordinates(place(LAYOUT, 4), rank)["pp"]
        assert rank_parameters(shape, LAYOUT, Precision(), stage).total == counts[name], rank


@pytest.mark.parametrize(
    ("num_layers", "layout"),
    [
        (8, {"pp": 4}),
        (24, {"pp": 4, "vpp": 3}),
        (10, {"pp": 3, "ends_count_as_layers": True}),
        (126, {"pp": 8, "vpp": 8, "ends_count_as_layers": True}),
    ],
)
def test_stages_hold_the_layers_that_megatron_core_assigns(
    num_layers: int, layout: dict[str, Any]
) -> None:
    laid = Layout(**layout)
    model = CONFIGS["dense"].model_copy(update={"num_layers": num_layers})
    assigned = run_ranks(1, engine_chunk_layers, laid, model)[0]
    assert assigned == [list(stage) for stage in laid.chunk_layers(num_layers)]
