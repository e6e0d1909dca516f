"""The models of published rows: shipped presets as a row changes them, and a few older shapes."""

import re
from functools import cache
from typing import Any

from moe.config.experiment import load_model
from moe.config.model import MOST_LAYERS, ModelConfig
from moe.cost.model_shape import shape_of
from moe.errors import ConfigError
from parallel.layout.model_shape import ModelShape, Weights
from parallel.planner.validation.jobs import UnusableRowError
from parallel.planner.validation.rows import PublishedRow

_NOTED = {
    "num_kv_heads": re.compile(r"(\d+) key-value heads"),
    "capacity_factor": re.compile(r"capacity factor ([0-9.]+)"),
}
"""What a row's notes may say of the model that ran, where it was not the preset."""


def shape_of_row(row: PublishedRow) -> ModelShape:
    """Return the sizes of the model that a row trained.

    Raises:
        UnusableRowError: No preset and no older shape has its name, or the row's sizes break a
            rule of the model's.
        ParallelError: A cell is wrong.
    """
    name, layers = row.text("model") or "", row.whole("num_layers")
    if layers is not None and layers > MOST_LAYERS:
        raise UnusableRowError(f"num_layers={layers}: at most {MOST_LAYERS}")
    if name in OLDER_SHAPES:
        return _older_shape(name, layers)
    try:
        return _preset_shape(name, tuple(sorted(_changes(row).items())))
    except ConfigError as error:
        raise UnusableRowError(f"model {name!r}: {error}") from None


def _changes(row: PublishedRow) -> dict[str, Any]:
    """Return what a row says of its model that may differ from the preset."""
    names = ("num_layers", "first_dense_layers", "mtp_layers")
    changes: dict[str, Any] = {name: row.whole(name) for name in names}
    # Published steps ran without multi-token prediction unless they say so.
    changes["mtp_layers"] = changes["mtp_layers"] or 0
    notes = row.text("notes") or ""
    if match := _NOTED["num_kv_heads"].search(notes):
        changes["num_kv_heads"] = int(match[1])
    if row.text("routing") == "capacity":
        match = _NOTED["capacity_factor"].search(notes)
        changes["capacity_factor"] = float(match[1]) if match else 1.0
    return {name: value for name, value in changes.items() if value is not None}


@cache
def _preset_shape(name: str, changes: tuple[tuple[str, Any], ...]) -> ModelShape:
    model = load_model(name)
    values = dict(changes)
    experts: dict[str, Any] = {
        key: values.pop(key) for key in ("first_dense_layers", "capacity_factor") if key in values
    }
    if model.moe is not None and experts:
        values["moe"] = model.moe.model_copy(update=experts)
    changed: ModelConfig = model.model_copy(update=values)
    return shape_of(changed)


def _older(
    layers: int, hidden: int, heads: int, vocab: int, *, ffn: int = 0, tied: bool = False
) -> ModelShape:
    """Return a dense shape with a plain feed-forward network and as many key-value heads."""
    inner = ffn or 4 * hidden
    return ModelShape(
        hidden_size=hidden,
        vocab_size=vocab,
        num_heads=heads,
        num_kv_heads=heads,
        qk_head_dim=hidden // heads,
        v_head_dim=hidden // heads,
        sparse_layers=(False,) * layers,
        is_gated=False,
        tie_embeddings=tied,
        ffn_hidden_size=inner,
        attention=Weights(sharded=4 * hidden**2, replicated=2 * hidden),
        dense_ffn=Weights(sharded=2 * hidden * inner),
    )


_README_VOCAB = 131_072
OLDER_SHAPES = {
    # arXiv:2005.14165; MLPerf's vocabulary is padded to 51,200.
    "gpt3-175b": _older(96, 12_288, 96, 51_200, tied=True),
    # NeMo 24.07's performance guide and configurations.
    "gpt3-20b": _older(44, 6144, 48, 51_200, tied=True),
    "nemotron-8b": _older(32, 4096, 32, 256_000),
    "nemotron-22b": _older(40, 6144, 48, 256_000),
    # NVIDIA/Megatron-LM@d98e8a64 images/model_table.png; parameters printed there: tables untied.
    "gpt-dense-1.7b": _older(24, 2048, 16, _README_VOCAB),
    "gpt-dense-7.1b": _older(30, 4096, 32, _README_VOCAB),
    "gpt-dense-16b": _older(32, 6144, 48, _README_VOCAB),
    "gpt-dense-32b": _older(48, 7168, 56, _README_VOCAB),
    "gpt-dense-70b": _older(84, 8192, 64, _README_VOCAB),
    "gpt-dense-119b": _older(92, 10_240, 80, _README_VOCAB),
    "gpt-dense-177b": _older(96, 12_288, 96, _README_VOCAB),
    "gpt-dense-314b": _older(96, 16_384, 128, _README_VOCAB),
    "gpt-dense-462b": _older(112, 18_432, 144, _README_VOCAB),
}
"""Dense models of published tables that are no presets: GELU or squared ReLU without a gate."""


@cache
def _older_shape(name: str, num_layers: int | None) -> ModelShape:
    shape = OLDER_SHAPES[name]
    if num_layers is None:
        return shape
    values = {**vars(shape), "sparse_layers": (False,) * num_layers}
    return ModelShape(**values)
