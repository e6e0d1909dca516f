"""The planner counts FLOPs of a shape as the ledger counts those of the model."""

import pytest

from moe.config.model import ModelConfig
from moe.config.presets.catalog import preset_model, preset_names
from moe.cost.ledger import ledger
from moe.cost.model_shape import shape_of
from parallel.planner.flops import training_flops_per_token


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_model_counts_alike(name: str) -> None:
    model = ModelConfig.model_validate(preset_model(name))
    for seq_len in (100, 4096, 131_072):
        counted = ledger(model, seq_len).training_flops_per_token
        assert training_flops_per_token(shape_of(model), seq_len) == counted
