"""Shipped models as transformers builds them: an independent count of every parameter."""

import pytest
import torch

from moe.config.experiment import load_model
from moe.config.presets.catalog import preset_names
from moe.convert.family import functional_config
from moe.convert.hub_config import HubConfig
from moe.convert.registry import family_for, family_of
from moe.cost.ledger import ledger

OURS = {"tiny", "small"}
"""Models of our own."""
DEFAULTS = {
    "Mixtral": "mixtral-8x7b", "DeepseekV3": "deepseek-v3", "GptOss": "gpt-oss-120b",
}  # fmt: skip
"""Classes of transformers whose defaults are a published model, but for its context."""


pytestmark = pytest.mark.needs("hub")


@pytest.mark.parametrize("preset", [name for name in preset_names() if name not in OURS])
def test_transformers_counts_the_same_parameters(preset: str) -> None:
    import transformers

    model = load_model(preset)
    family, values = family_for(model)
    assert functional_config(
        family.model(HubConfig("x", values), model.mtp_layers)
    ) == functional_config(model)
    config = transformers.AutoConfig.for_model(**values)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    counted = ledger(model, 1)
    # Multi-token prediction is not part of transformers' classes.
    expected = counted.total_parameters - counted.mtp_parameters
    assert sum(weight.numel() for weight in built.parameters()) == expected


@pytest.mark.parametrize(("stem", "preset"), DEFAULTS.items())
def test_transformers_defaults_are_the_shipped_model(stem: str, preset: str) -> None:
    import transformers

    values = getattr(transformers, f"{stem}Config")().to_dict()
    config = HubConfig(stem, values)
    theirs, ours = (
        functional_config(family_of(config).model(config)),
        functional_config(load_model(preset)),
    )
    differing = {key for key in theirs if theirs[key] != ours[key]}
    assert differing <= {"max_seq_len", "mtp_layers", "rope"}
