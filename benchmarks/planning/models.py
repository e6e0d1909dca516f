"""The shape of the model that a published row names."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from pydantic import ValidationError

from moe.config.model import ModelConfig
from moe.config.presets.catalog import preset_model
from moe.cost.model_shape import shape_of
from moe.errors import ConfigError
from parallel.layout.model_shape import ModelShape, Weights
from parallel.planner.validation.jobs import UnusableRowError
from parallel.planner.validation.rows import PublishedRow


def shape_of_row(row: PublishedRow) -> ModelShape:
    """Return the sizes of a row's model, with the depth that it states.

    Raises:
        UnusableRowError: No preset and no published shape has this name, or it cannot be so.
    """
    name = row.text("model") or ""
    depth = row.whole("num_layers")
    if name in _published_shapes():
        return _ungated(_published_shapes()[name], depth)
    try:
        return _preset_shape(name, depth, row.whole("first_dense_layers"), row.whole("mtp_layers") or 0)
    except ConfigError as error:
        raise UnusableRowError(str(error)) from None


@cache
def _preset_shape(
    name: str, depth: int | None, first_dense_layers: int | None, mtp_layers: int
) -> ModelShape:
    table = {**preset_model(name), "mtp_layers": mtp_layers}
    if depth is not None:
        table["num_layers"] = depth
    if first_dense_layers is not None:
        table["moe"] = {**table["moe"], "first_dense_layers": first_dense_layers}
    try:
        return shape_of(ModelConfig.model_validate(table))
    except ValidationError as error:
        raise UnusableRowError(f"{name}: {error.errors()[0]['msg']}") from None


@cache
def _published_shapes() -> dict[str, dict[str, Any]]:
    file = resources.files("benchmarks.published") / "shapes.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _ungated(sizes: dict[str, Any], depth: int | None) -> ModelShape:
    """Return a model of plain attention and networks without a gate."""
    hidden, inner = sizes["hidden_size"], sizes["ffn_hidden_size"]
    head_dim = hidden // sizes["num_heads"]
    return ModelShape(
        hidden_size=hidden,
        vocab_size=sizes["vocab_size"],
        num_heads=sizes["num_heads"],
        num_kv_heads=sizes["num_heads"],
        qk_head_dim=head_dim,
        v_head_dim=head_dim,
        sparse_layers=(False,) * (depth or sizes["num_layers"]),
        tie_embeddings=sizes.get("tie_embeddings", False),
        ffn_hidden_size=inner,
        is_gated=False,
        attention=Weights(sharded=4 * hidden * hidden, replicated=2 * hidden),
        dense_ffn=Weights(sharded=2 * hidden * inner),
    )
