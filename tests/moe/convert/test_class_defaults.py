"""A key that `config.json` leaves out means what the class of transformers makes of it."""

import copy
from typing import Any

import pytest

from moe.convert.class_defaults import CLASS_DEFAULTS
from moe.convert.class_kinds import KINDS
from moe.convert.family import functional_config
from moe.convert.hub_config import HubConfig
from moe.convert.registry import FAMILIES
from moe.errors import ConfigError
from tests.support.hf_reference_models import COMMON, MODELS

pytestmark = pytest.mark.needs("hub")

OF_4 = {"aux_loss_alpha", "seq_aux"}
"""Keys of transformers 4 alone: of training, and without effect there."""
SIZES = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "intermediate_size",
    "max_position_embeddings", "moe_intermediate_size", "num_experts", "num_local_experts",
    "n_routed_experts", "num_experts_per_tok", "kv_lora_rank", "qk_nope_head_dim",
    "qk_rope_head_dim", "v_head_dim", "shared_expert_intermediate_size",
)  # fmt: skip
ABSENT = (None, False)
"""What a class without the key does."""


def config_class(kind: str) -> Any:
    import transformers

    return getattr(transformers, f"{MODELS[kind][0]}Config")


def written(kind: str) -> dict[str, Any]:
    """Return a configuration with every key of its class, as `save_pretrained` writes it."""
    values: dict[str, Any] = config_class(kind)(**COMMON | MODELS[kind][1]).to_dict()
    return values


@pytest.mark.parametrize("kind", MODELS)
def test_the_table_is_that_of_the_installed_classes(kind: str) -> None:
    # The rest is derived: without heads of its own a file has as many as the class has queries.
    config = config_class(kind)()
    differing = {}
    for key, ours in CLASS_DEFAULTS[kind].items():
        if key in {"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"}:
            continue
        theirs = type(config).__dict__.get(key, getattr(config, key, None))
        if key in OF_4 or (ours in ABSENT and key not in vars(type(config))):
            continue
        if ours != theirs:
            differing[key] = (ours, theirs)
    assert differing == {}


MISSING = object()
VALUES = (MISSING, None, True, 2, 1.5, "x", [1], ["x"], {})
INDIFFERENT: list[tuple[str, Any]] = [("dtype", "x"), ("pretraining_tp", None)]
"""Refused by a class, and without effect on a model."""


@pytest.mark.parametrize("kind", MODELS)
def test_any_value_of_any_key_means_what_the_class_makes_of_it_or_is_refused(kind: str) -> None:
    family, full = FAMILIES[kind], written(kind)
    compared = 0
    for key in sorted({*full} & {*CLASS_DEFAULTS[kind], *SIZES, *KINDS}):
        for value in VALUES:
            values = {name: old for name, old in full.items() if name != key}
            if value is not MISSING:
                values[key] = value
            try:
                ours = functional_config(family.model(HubConfig("x", values)))
            except ConfigError as error:
                assert value is not MISSING or key in str(error)
                continue
            try:
                theirs = HubConfig("x", config_class(kind)(**copy.deepcopy(values)).to_dict())
            except Exception:
                is_number = isinstance(value, int) and isinstance(full[key], float | None)
                assert is_number or (key, value) in INDIFFERENT, (key, value)
                continue
            assert ours == functional_config(family.model(theirs)), (key, value)
            compared += 1
    assert compared >= 12


@pytest.mark.parametrize("kind", MODELS)
def test_a_null_is_refused_wherever_the_class_refuses_it(kind: str) -> None:
    """Also of keys whose model would be the same: what is exported has to load."""
    full = written(kind)
    for key in sorted({*full} & {*KINDS} - {key for key, _ in INDIFFERENT}):
        values = full | {key: None}
        try:
            config_class(kind)(**copy.deepcopy(values))
        except Exception:
            with pytest.raises(ConfigError, match=f"x: {key} "):
                FAMILIES[kind].model(HubConfig("x", values))
