"""Models of published rows: presets by name or alias, as rows change them, and older shapes."""

import pytest

from benchmarks.planning.published_shapes import OLDER_SHAPES, shape_of_row
from moe.config.experiment import load_model
from moe.cost.model_shape import shape_of
from parallel.errors import ParallelError
from parallel.layout.model_shape import ModelShape
from parallel.planner.flops import training_flops_per_token
from parallel.planner.validation.jobs import UnusableRowError
from parallel.planner.validation.rows import PublishedRow


def shape(model: str, **cells: str) -> ModelShape:
    return shape_of_row(PublishedRow(2, {"model": model, **cells}))


def parameters(model: ModelShape) -> int:
    """Return all parameters of a dense model without norms at the ends."""
    tables = model.vocab_size * model.hidden_size * (1 if model.tie_embeddings else 2)
    return tables + model.num_layers * (model.attention.total + model.dense_ffn.total)


def test_a_preset_is_found_by_name_and_by_alias() -> None:
    expected = shape_of(load_model("qwen3-235b-a22b"))
    assert shape("qwen3-235b-a22b") == shape("Qwen3_235B_a22B") == expected


def test_a_row_changes_depth_dense_layers_prediction_layers_and_heads() -> None:
    small = shape("deepseek-v3", num_layers="4", first_dense_layers="1", mtp_layers="0")
    assert small.sparse_layers == (False, True, True, True)
    assert small.mtp_layers == 0
    assert shape("deepseek-v3", mtp_layers="1").mtp_layers == 1
    assert shape("deepseek-v3").mtp_layers == 0, "a row that does not say ran without"
    assert shape("llama3.1-405b", notes="16 key-value heads").num_kv_heads == 16


def test_dropped_tokens_are_read_from_the_notes() -> None:
    row = {"routing": "capacity", "notes": "padded; capacity factor 2"}
    assert shape("mixtral-8x7b", **row).capacity_factor == 2.0
    assert shape("mixtral-8x7b", routing="capacity").capacity_factor == 1.0
    assert shape("mixtral-8x7b", routing="forced").capacity_factor is None


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("gpt3-175b", 174.6),
        ("gpt3-20b", 20.2),
        ("nemotron-8b", 8.5),
        ("nemotron-22b", 21.3),
        *((name, float(name[10:-1])) for name in OLDER_SHAPES if name.startswith("gpt-dense-")),
    ],
)
def test_older_shapes_have_the_parameters_that_were_printed(name: str, billions: float) -> None:
    model = shape(name)
    assert not model.is_gated
    assert parameters(model) / 1e9 == pytest.approx(billions, rel=0.03)
    assert shape(name, num_layers="2").num_layers == 2


def test_flops_of_an_older_shape_are_those_of_its_weights() -> None:
    model = shape("gpt3-175b")
    by_hand = 6 * (96 * 12 * 12_288**2 + 51_200 * 12_288) + 6 * 96 * 12_288 * 2049
    assert training_flops_per_token(model, 2048) == pytest.approx(by_hand, rel=1e-3)


def test_what_cannot_be_resolved_says_why() -> None:
    with pytest.raises(UnusableRowError, match="model 'nemotron-3-ultra': no preset"):
        shape("nemotron-3-ultra")
    with pytest.raises(UnusableRowError, match="model ''"):
        shape("")
    with pytest.raises(UnusableRowError, match="num_layers=99999999"):
        shape("llama3-8b", num_layers="99999999")
    with pytest.raises(ParallelError, match=r"line 2, num_layers = '1.5'"):
        shape("llama3-8b", num_layers="1.5")
